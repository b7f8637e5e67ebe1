"""Structured logs: one JSON object per line on standard error."""

import json
import logging
import sys
import traceback
from typing import Any, cast

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
    # A library may log the texts it handles, so only the place of its warnings is logged.
    form = f'{{"service": "{service}", "library": "%(name)s", "line": %(lineno)d, "level": "%(levelname)s"}}'
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Places(form))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    # kafka-python warns of every slow iteration of its loop on a busy machine.
    logging.getLogger("kafka").setLevel(logging.ERROR)


class _Places(logging.Formatter):
    """Formats an exception as its type and place only, because its message may hold personal data."""

    def formatException(self, ei: Any) -> str:
        _, error, _ = ei
        return json.dumps({"error": type(error).__name__, "at": place(error) if error else ""})


def place(error: BaseException) -> str:
    """The file and line that raised an error."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""


def _add_service(service: str) -> structlog.typing.Processor:
    def add(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        return {"service": service, **event}

    return add


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger for one module. Never log texts, personal values or secrets."""
    return cast(structlog.stdlib.BoundLogger, structlog.get_logger(module=name))
