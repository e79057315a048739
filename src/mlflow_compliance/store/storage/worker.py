"""The program of a helper process: `python -I -S` runs this file, and imports nothing but the standard library and
the worker's own module.
"""

from __future__ import annotations

import gc
import marshal
import os
import struct
import sys

TICKET, FRAME = struct.Struct("=H"), struct.Struct("=HQ")


def main(request: int, package: str, module: str, name: str) -> None:
    """Take tickets from standard input, which others take from too, and write what comes of them to standard
    output, part by part.
    """
    sys.path.append(package)
    worker = getattr(__import__(module, fromlist=[name]), name)
    gc.disable()  # nothing here refers to itself
    work, parts = None, ()
    # It is started before it is known what there is to do: the first ticket says that the request is written.
    while len(ticket := os.read(0, TICKET.size)) == TICKET.size:
        if work is None:
            with open(request, "rb") as file:
                asked, parts = marshal.loads(file.read())  # noqa: S302  written by the process that started this one
            work = worker(*asked)
        (number,) = TICKET.unpack(ticket)
        body = marshal.dumps(work(parts[number]))
        frame = memoryview(FRAME.pack(number, len(body)) + body)
        while frame:
            frame = frame[os.write(1, frame) :]


if __name__ == "__main__" and sys.argv[2] == sys.getfilesystemencoding():
    main(int(sys.argv[1]), *sys.argv[3:])
