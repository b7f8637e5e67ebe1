"""Structured logs: one JSON object per line on standard error."""

import json
import logging
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import cast

import structlog


def configure(service: str, level: str, *taps: structlog.typing.Processor) -> None:
    """Send the logs of the service and its libraries to standard error as JSON lines. Each tap receives what the service logs."""
    structlog.configure(
        processors=[
            _add_service(service),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *taps,
            structlog.processors.dict_tracebacks,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LibraryLines(service))
    handler.addFilter(_Repeats())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    # kafka-python warns of every slow iteration of its loop on a busy machine.
    logging.getLogger("kafka").setLevel(logging.ERROR)


# Values in a library's message that cannot be personal data: topics, types of errors, constants; and short numbers.
SAFE_VALUE = re.compile(r"[a-z]+(?:\.[a-z_]+)*\.v[0-9]+|[A-Z][A-Za-z]*(?:Error|Exception|Warning)|[A-Z]+(?:_[A-Z]+)+")
MAX_DIGITS = 7
# kafka-python's messages are about connections and offsets. Keys and values occur in quotes.
OPEN_LIBRARIES = ("kafka",)
QUOTED = re.compile(r"""b?'[^']*'|b?"[^"]*\"""")
PLACEHOLDER = re.compile(r"%(?:%|(?:\([^)]*\))?[-+ #0]*[\d*]*(?:\.[\d*]+)?[a-zA-Z])")
MAX_TEXT = 300
# The last line of a traceback.
UNCAUGHT = re.compile(r"[\w.]*(?:Error|Exception|Interrupt|Exit)\b")
REPEAT_SECONDS = 60.0
MAX_REMEMBERED = 1_000
HIDDEN = "…"


class _Repeats(logging.Filter):
    """Lets an unchanged line of a library through once a minute: some repeat theirs several times per second while they wait."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now = now
        self._last: dict[tuple[str, int, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        key = (record.name, record.lineno, scrubbed(record))
        last = self._last.get(key)
        if last is not None and self._now() - last < REPEAT_SECONDS:
            return False
        if len(self._last) >= MAX_REMEMBERED:
            self._last.clear()
        self._last[key] = self._now()
        return True


class _LibraryLines(logging.Formatter):
    """A library's line as JSON: its place, and its message without the values that it may have handled.

    Of an exception only the type and the place are kept, because its message may hold personal data.
    """

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "service": self._service,
            "library": record.name,
            "line": record.lineno,
            "level": record.levelname,
            "text": scrubbed(record),
        }
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            line |= {"error": type(error).__name__, "at": place(error)}
        return json.dumps(line, ensure_ascii=False)


def scrubbed(record: logging.LogRecord) -> str:
    """A library's message whose variable parts are hidden unless they are numbers, error types, topics or constants.

    A message without separate values may have been put together from anything, so only that of an open library is kept.
    """
    if record.name.partition(".")[0] in OPEN_LIBRARIES:
        return QUOTED.sub(HIDDEN, record.getMessage())[:MAX_TEXT]
    if not record.args or not isinstance(record.msg, str):
        return HIDDEN
    values = record.args if isinstance(record.args, tuple) else (record.args,)
    shown = iter([_shown(value) for value in values])
    return PLACEHOLDER.sub(lambda match: "%" if match[0] == "%%" else next(shown, HIDDEN), record.msg)[:MAX_TEXT]


def _shown(value: object) -> str:
    if isinstance(value, BaseException):
        return type(value).__name__
    if isinstance(value, (int, float)):
        return text if len(text := str(value)) <= MAX_DIGITS else HIDDEN
    return value if isinstance(value, str) and SAFE_VALUE.fullmatch(value) else HIDDEN


def place(error: BaseException) -> str:
    """The file and line that raised an error."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""


def describe_error(error: BaseException, *, with_message: bool = False) -> str:
    """The type and the place of an error, for the log of the process that gets it. Its message may quote a text that was handled."""
    message = f": {error}"[:MAX_TEXT] if with_message else ""
    return f"{type(error).__name__}{message} at {place(error)}"


def describe_exit(code: int, stderr: str = "", *, with_message: bool = False) -> str:
    """How a child process failed, for the log of its parent: the error that ended it, or its signal or status."""
    if code < 0:
        return f"it was ended by {signal.Signals(-code).name}"
    last = next((line for line in reversed(stderr.splitlines()) if UNCAUGHT.match(line)), "")
    error = last if with_message else last.partition(":")[0]
    return error[:MAX_TEXT] or f"it ended with status {code}"


def _add_service(service: str) -> structlog.typing.Processor:
    def add(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        return {"service": service, **event}

    return add


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger for one module. Never log texts, personal values or secrets."""
    return cast(structlog.stdlib.BoundLogger, structlog.get_logger(module=name))
