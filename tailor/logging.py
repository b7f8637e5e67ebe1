"""Structured logs: one JSON object per line on standard error."""

import json
import logging
import sys
import traceback
from typing import Any, cast

import structlog


def configure(service: str, level: str, *taps: structlog.typing.Processor) -> None:
    """Send the service's and its libraries' logs to standard error as JSON lines. Each tap sees what the service logs."""
    structlog.configure(
        processors=[
            _named(service),
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
    # A library may log what it handles: its warnings say where, never what.
    form = f'{{"service": "{service}", "library": "%(name)s", "line": %(lineno)d, "level": "%(levelname)s"}}'
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Places(form))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    # kafka-python warns of every slow turn of its loop on a busy machine.
    logging.getLogger("kafka").setLevel(logging.ERROR)


class _Places(logging.Formatter):
    """Of an exception its type and its place alone: what it says may be of a person."""

    def formatException(self, ei: Any) -> str:
        """One line of JSON."""
        _, error, _ = ei
        return json.dumps({"error": type(error).__name__, "at": place(error) if error else ""})


def place(error: BaseException) -> str:
    """File and line that raised an error."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""


def _named(service: str) -> structlog.typing.Processor:
    def add(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        return {"service": service, **event}

    return add


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger for one module; it never gets texts, personal values or secrets."""
    return cast(structlog.stdlib.BoundLogger, structlog.get_logger(module=name))
