"""The parsing worker: a sandboxed process without secrets that parses one file after another from standard input.

A frame is a length of four bytes followed by the content. A request is two frames: JSON {"name", "content_type", "cpu_seconds",
"max_chars"} and the file's bytes. An answer is one frame of JSON: {"text", "format", "prompt", "spans", "removed"}, and
"key_insights" of a golden document; or {"reason", "hint", "format"}. It has "is_last" if the worker exits afterwards.
"""

import json
import os
import signal
import sys
from pathlib import Path

from services.ingestion.adapters.confine import confine, prefer_ending_this, set_limits
from services.ingestion.domain import File, Rejected, RejectionReason, check_text
from services.ingestion.formats.budget import Budget
from services.ingestion.formats.read import PARSERS, load_parser, read
from services.ingestion.spans import limit_spans
from tailor.frames import read_frame, write_frame

OPEN_FILES = 64
# The exit status if this machine cannot sandbox the worker. Nothing is parsed then.
UNCONFINED = 78
OUT_OF_MEMORY = json.dumps(
    {
        "reason": RejectionReason.TOO_LARGE,
        "hint": "The file needs more memory than is allowed. Publish it in parts.",
        "format": "",
        "is_last": True,
    }
).encode()
SERVICES = Path(__file__).resolve().parents[2]
SYSTEM = ("/usr", "/lib", "/lib64", "/dev/null", "/dev/urandom")


def answer(file: File, max_chars: int) -> dict[str, object]:
    """Parse a file into an answer. An exception of a parser means a damaged file; MemoryError ends the worker."""
    try:
        parsed = check_text(read(file, Budget(characters=max_chars)), max_chars)
    except Rejected as rejected:
        return {"reason": rejected.reason, "hint": rejected.hint, "format": rejected.format}
    except RecursionError:
        return {
            "reason": RejectionReason.TOO_LARGE,
            "hint": "The file nests too deeply. Publish its parts.",
            "format": "",
        }
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - the outermost frame around parsers of other projects; the message may quote the document
        return {"reason": RejectionReason.CORRUPT, "hint": "The file cannot be parsed. Export it again.", "format": ""}
    spans = [[span.kind, span.number, span.start, span.end] for span in limit_spans(parsed.spans)]
    content: dict[str, object] = {
        "text": parsed.text,
        "format": parsed.format,
        "prompt": parsed.prompt,
        "spans": spans,
        "removed": parsed.removed,
    }
    return content if parsed.insights is None else content | {"key_insights": parsed.insights}


def readable() -> list[Path]:
    """The folders that contain code, which parsers load lazily."""
    code = [SERVICES, SERVICES.parent / "tailor", Path(sys.prefix), Path(sys.base_prefix)]
    return [*code, *map(Path, SYSTEM)]


def enter_sandbox(memory_bytes: int) -> None:
    """Load every parser, then enter the sandbox. Raises OSError if the machine cannot sandbox a process."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    for format in PARSERS:
        load_parser(format)
    prefer_ending_this()
    set_limits(memory_bytes, OPEN_FILES)
    confine(readable())


def main(memory_bytes: int) -> None:
    """Answer requests until standard input ends or memory runs out."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # Output that a parser prints must not mix with the answers.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
    try:
        enter_sandbox(memory_bytes)
    except OSError:
        sys.exit(UNCONFINED)
    while (head := read_frame(requests, sys.maxsize)) is not None:
        data = read_frame(requests, sys.maxsize)
        if data is None:
            return
        request = json.loads(head)
        _allow_cpu_seconds(request["cpu_seconds"])
        try:
            content = answer(File(data, request["name"], request["content_type"]), request["max_chars"])
            frame = json.dumps(content, ensure_ascii=False).encode()
        except MemoryError:
            write_frame(answers, OUT_OF_MEMORY)
            return
        _allow_cpu_seconds(None)
        write_frame(answers, frame)


def _allow_cpu_seconds(seconds: float | None) -> None:
    """End this process by SIGPROF once it has used so much processor time from now on; None allows any time.

    A timer, because RLIMIT_CPU limits the time of the whole process, which the kernel counts in clock ticks. On a busy virtual machine it
    counted 13.0 s where `getrusage` had 11.6 s: a limit set by `getrusage` would end a worker after a while, in any file.
    """
    signal.setitimer(signal.ITIMER_PROF, seconds or 0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
