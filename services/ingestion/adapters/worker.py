"""The parsing worker: a process without secrets that reads one file after another from standard input.

A frame is four bytes of length and that many of content. A request is two frames: JSON {"name", "content_type", "cpu_seconds"} and the
file's bytes. An answer is one frame of JSON: {"text", "format", "prompt"} or {"reason", "hint", "format"}.
"""

import json
import os
import resource
import struct
import sys
from typing import BinaryIO

from services.ingestion.adapters.formats.read import read
from services.ingestion.domain import File, Reason, Rejected

LENGTH = struct.Struct(">I")


def write_frame(stream: BinaryIO, data: bytes) -> None:
    """Send one frame."""
    stream.write(LENGTH.pack(len(data)) + data)
    stream.flush()


def read_frame(stream: BinaryIO) -> bytes | None:
    """The next frame; None where the other side is gone."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    size = LENGTH.unpack(head)[0]
    data = stream.read(size)
    return data if len(data) == size else None


def answer(file: File) -> dict[str, str | None]:
    """What became of a file; what a parser cannot cope with is a damaged file, and the worker lives on."""
    try:
        parsed = read(file)
    except Rejected as rejected:
        return {"reason": rejected.reason, "hint": rejected.hint, "format": rejected.format}
    except MemoryError:
        return {
            "reason": Reason.TOO_LARGE,
            "hint": "The file needs more memory than is granted; publish it in parts.",
            "format": "",
        }
    except Exception:  # noqa: BLE001 - the outermost frame around foreign parsers; its message may quote the document
        return {"reason": Reason.CORRUPT, "hint": "The file cannot be parsed; export it again.", "format": ""}
    return {"text": parsed.text, "format": parsed.format, "prompt": parsed.prompt}


def main(memory_bytes: int) -> None:
    """Serve until standard input ends."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # What a parser prints must not run into the answers.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    while (head := read_frame(requests)) is not None and (data := read_frame(requests)) is not None:
        request = json.loads(head)
        used = resource.getrusage(resource.RUSAGE_SELF)
        resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + request["cpu_seconds"] + 1, hard))
        write_frame(answers, json.dumps(answer(File(data, request["name"], request["content_type"]))).encode())


if __name__ == "__main__":
    main(int(sys.argv[1]))
