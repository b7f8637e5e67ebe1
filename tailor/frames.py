"""Child processes for work that may go wrong: their environment, and frames between them and their parent.

A frame is a length of four bytes, then the content.
"""

import os
import struct
import sys
from typing import BinaryIO

LENGTH = struct.Struct(">I")


def bare_environment(**more: str) -> dict[str, str]:
    """The environment of a child: of ours it gets only the places of code, and no secrets."""
    # `abspath` follows no links.
    places = os.pathsep.join(os.path.abspath(path) for path in sys.path if path)  # noqa: PTH100
    return {"PATH": os.environ.get("PATH", ""), "PYTHONPATH": places, "LC_ALL": "C.UTF-8"} | more


def write_frame(stream: BinaryIO, data: bytes) -> None:
    """Write one frame and flush the stream."""
    stream.write(LENGTH.pack(len(data)) + data)
    stream.flush()


def read_frame(stream: BinaryIO, max_bytes: int) -> bytes | None:
    """The next frame, or None if the stream ends or the frame announces more than `max_bytes`. Blocks."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    size = LENGTH.unpack(head)[0]
    data = stream.read(size) if size <= max_bytes else b""
    return data if len(data) == size else None
