"""What processes of a pool are asked to do. They import it by its name, which they cannot do with a file of tests."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
from pathlib import Path


def fatal(unit: tuple[int, int, str]) -> int:
    """Twice a number; at the 3 every process dies but the one that is named, and leaves its own name in a folder."""
    number, here, folder = unit
    if number == 3 and os.getpid() != here:
        Path(folder, "3").write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGKILL)
    return number * 2


def hide(folder: str) -> None:
    """From now on this process sees an empty folder, and is another machine by its name."""
    library = ctypes.CDLL(None, use_errno=True)
    # By the system's own calls: the program `mount` reads the list of mounts, which other tests change meanwhile.
    private = 0x4000 | 0x40000  # and all below it
    if (
        library.unshare(0x00020000 | 0x04000000)  # mounts and the host's name
        or library.mount(b"none", b"/", None, private, None)
        or library.mount(b"none", os.fsencode(folder), b"tmpfs", 0, None)
    ):
        raise OSError(ctypes.get_errno(), "the worker sees what everybody sees")
    socket.sethostname("elsewhere")
