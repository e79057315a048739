"""Which system calls a model's process may not make: a filter that the kernel holds it and all its threads to."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Iterator
from errno import ENOSYS, ENOTSUP, EPERM

_SET_SECCOMP, _FILTER = 22, 2
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""Which column of the numbers counts, and how the kernel's audit names the machine."""

_LOAD, _AND, _EQUAL, _HAS, _AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x45, 0x35, 0x06
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _MACHINE = 0, 4
_OTHER_NUMBERING = 0x40000000  # x32: the same calls by other numbers

# Each call with its number on x86_64 and on aarch64, which never had some of them.
_CHANGING_FILES = {
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "lchown": (94, None),
    "fchown": (93, 55),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
}
"""Landlock knows nothing of these. They are answered as if they were done: copying a file with its mode and time must
go on to work.
"""
_MARKING_FILES = {
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "setxattrat": (463, 463),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "removexattrat": (466, 466),
    "file_setattr": (469, 469),
}
"""Refused as by a file system that has no such thing."""
_REFUSED = {
    "socket": (41, 198),
    "connect": (42, 203),
    "bind": (49, 200),
    "fork": (57, None),
    "vfork": (58, None),
    "tkill": (200, 130),
    "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "unshare": (272, 97),
    "setns": (308, 268),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
    "open_by_handle_at": (304, 265),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
}
_UNKNOWN = {
    "clone3": (435, 435),  # its flags lie in memory, where no filter sees them: the C library then takes clone
    "io_uring_setup": (425, 425),  # would make every other call unseen
    "memfd_create": (319, 279),  # memory that the limit of address space does not count, as are the next
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
}
"""Refused as by a kernel that has no such thing."""
_ON_ITSELF = {
    "kill": (62, 129),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "prlimit64": (302, 261),
}
"""Allowed where the first argument names this process, or nobody (which means the process too, but for signals)."""

_CLONE, _THREAD = (56, 220), 0x10000
_SOCKETPAIR, _KIND, _STREAM = (53, 199), 0xF, 1
_IOCTL, _OF_A_FILE = (16, 29), (0x40086602, 0x401C5820, 0x8901, 0x8902)
_FCNTL, _OWNER = (72, 25), (8, 15)
"""ioctl that sets a file's flags or names who gets its signals; fcntl that does the latter."""


def filterable() -> bool:
    """Whether this kernel takes filters, and this machine is one whose calls are known."""
    # Without a filter to read, EFAULT (14) says that it would be taken.
    libc = ctypes.CDLL(None, use_errno=True)
    return platform.machine() in _MACHINES and libc.prctl(_SET_SECCOMP, _FILTER, None) < 0 and ctypes.get_errno() == 14


def filter_calls() -> None:
    """Hold this process to the filter for ever. It must have given up new privileges; where the kernel has no filters
    nothing is held.
    """
    if platform.machine() not in _MACHINES:
        return
    program = b"".join(_program(*_MACHINES[platform.machine()], os.getpid()))
    text = ctypes.create_string_buffer(program, len(program))
    wanted = struct.pack("@HP", len(program) // 8, ctypes.addressof(text))
    ctypes.CDLL(None).prctl(_SET_SECCOMP, _FILTER, wanted)


def _program(column: int, machine: int, own: int) -> Iterator[bytes]:
    yield from (_step(_LOAD, _MACHINE), _step(_EQUAL, machine, 1, 0), _step(_RETURN, _KILL))
    yield from (_step(_LOAD, _NUMBER), _step(_AT_LEAST, _OTHER_NUMBERING, 0, 1), _end(ENOSYS))
    for calls, error in ((_CHANGING_FILES, 0), (_MARKING_FILES, ENOTSUP), (_REFUSED, EPERM), (_UNKNOWN, ENOSYS)):
        for numbers in calls.values():
            yield from _for(numbers[column], _end(error))
    for name, numbers in _ON_ITSELF.items():
        others = [_end(EPERM)] if name != "prlimit64" else [_step(_EQUAL, 0, 0, 1), _end(None), _end(EPERM)]
        yield from _for(numbers[column], _argument(0), _step(_EQUAL, own, 0, 1), _end(None), *others)
    yield from _for(_CLONE[column], _argument(0), _step(_HAS, _THREAD, 0, 1), _end(None), _end(EPERM))
    # One of datagrams could be sent to any address; of streams both ends are this process's own.
    kind = (_argument(1), _step(_AND, _KIND), _step(_EQUAL, _STREAM, 0, 1))
    yield from _for(_SOCKETPAIR[column], *kind, _end(None), _end(EPERM))
    for numbers, values in ((_IOCTL, _OF_A_FILE), (_FCNTL, _OWNER)):
        refused = [step for value in values for step in (_step(_EQUAL, value, 0, 1), _end(EPERM))]
        yield from _for(numbers[column], _argument(1), *refused, _end(None))
    yield _end(None)


def _for(number: int | None, *steps: bytes) -> Iterator[bytes]:
    """What is done at one call; the steps end all."""
    if number is not None:
        yield from (_step(_EQUAL, number, 0, len(steps)), *steps)


def _argument(position: int) -> bytes:
    """The lower half: all that the kernel itself looks at, of each of those that are asked about."""
    return _step(_LOAD, 16 + 8 * position)


def _end(error: int | None) -> bytes:
    return _step(_RETURN, _ALLOW if error is None else _ERROR | error)


def _step(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
    return struct.pack("=HBBI", code, then, otherwise, value)
