"""The parsing worker: a locked-in process without secrets that reads one file after another from standard input.

A frame is four bytes of length and that many of content. A request is two frames: JSON {"name", "content_type", "cpu_seconds", "max_chars"}
and the file's bytes. An answer is one frame of JSON: {"text", "format", "prompt", "spans"} or {"reason", "hint", "format"}, with "is_last"
where the worker ends thereafter.
"""

import json
import os
import resource
import struct
import sys
from pathlib import Path
from typing import BinaryIO

from services.ingestion.adapters.confine import confine, limit, prefer_ending_this
from services.ingestion.adapters.formats.budget import Budget
from services.ingestion.adapters.formats.read import PARSERS, parser, read
from services.ingestion.domain import File, Rejected, RejectionReason, check_text
from services.ingestion.spans import bounded

LENGTH = struct.Struct(">I")
OPEN_FILES = 64
# The exit status where this machine cannot lock the worker in: nothing is parsed then.
UNCONFINED = 78
OUT_OF_MEMORY = json.dumps(
    {
        "reason": RejectionReason.TOO_LARGE,
        "hint": "The file needs more memory than is granted; publish it in parts.",
        "format": "",
        "is_last": True,
    }
).encode()
SERVICES = Path(__file__).resolve().parents[2]
SYSTEM = ("/usr", "/lib", "/lib64", "/dev/null", "/dev/urandom")


def write_frame(stream: BinaryIO, data: bytes) -> None:
    """Send one frame."""
    stream.write(LENGTH.pack(len(data)) + data)
    stream.flush()


def read_frame(stream: BinaryIO, most: int) -> bytes | None:
    """The next frame; None where the other side is gone, or claims more bytes than `most`."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    size = LENGTH.unpack(head)[0]
    data = stream.read(size) if size <= most else b""
    return data if len(data) == size else None


def answer(file: File, max_chars: int) -> dict[str, object]:
    """What became of a file; what a parser cannot cope with is a damaged file, and the worker lives on."""
    try:
        parsed = check_text(read(file, Budget(characters=max_chars)), max_chars)
    except Rejected as rejected:
        return {"reason": rejected.reason, "hint": rejected.hint, "format": rejected.format}
    except RecursionError:
        return {
            "reason": RejectionReason.TOO_LARGE,
            "hint": "The file nests too deeply; publish its parts.",
            "format": "",
        }
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - the outermost frame around foreign parsers; its message may quote the document
        return {"reason": RejectionReason.CORRUPT, "hint": "The file cannot be parsed; export it again.", "format": ""}
    spans = [[span.kind, span.number, span.start, span.end] for span in bounded(parsed.spans)]
    return {"text": parsed.text, "format": parsed.format, "prompt": parsed.prompt, "spans": spans}


def readable() -> list[Path]:
    """The folders of the code, which parsers still load parts of."""
    own = [SERVICES, SERVICES.parent / "tailor", Path(sys.prefix), Path(sys.base_prefix)]
    return [*own, *map(Path, SYSTEM)]


def lock_in(memory_bytes: int) -> None:
    """Load every parser, then lock this process in; OSError where the machine cannot."""
    for format in PARSERS:
        parser(format)
    prefer_ending_this()
    limit(memory_bytes, OPEN_FILES)
    confine(readable())


def main(memory_bytes: int) -> None:
    """Serve until standard input ends, or until memory does."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # What a parser prints must not run into the answers.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
    try:
        lock_in(memory_bytes)
    except OSError:
        sys.exit(UNCONFINED)
    while (head := read_frame(requests, sys.maxsize)) is not None:
        data = read_frame(requests, sys.maxsize)
        if data is None:
            return
        request = json.loads(head)
        _grant(request["cpu_seconds"])
        try:
            content = answer(File(data, request["name"], request["content_type"]), request["max_chars"])
            frame = json.dumps(content, ensure_ascii=False).encode()
        except MemoryError:
            write_frame(answers, OUT_OF_MEMORY)
            return
        write_frame(answers, frame)


def _grant(cpu_seconds: int) -> None:
    """Let this process use so many more seconds of processor time."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + cpu_seconds + 1, hard))


if __name__ == "__main__":
    main(int(sys.argv[1]))
