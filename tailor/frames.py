"""Frames between a process and its child: a length of four bytes, then the content."""

import struct
from typing import BinaryIO

LENGTH = struct.Struct(">I")


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
