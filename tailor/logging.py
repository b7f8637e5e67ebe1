"""Structured logs: one JSON object per line on standard error."""

import logging
import sys
from typing import cast

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
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format=form)
    # kafka-python warns of every slow turn of its loop on a busy machine.
    logging.getLogger("kafka").setLevel(logging.ERROR)


def _named(service: str) -> structlog.typing.Processor:
    def add(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        return {"service": service, **event}

    return add


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger for one module; it never gets texts, personal values or secrets."""
    return cast(structlog.stdlib.BoundLogger, structlog.get_logger(module=name))
