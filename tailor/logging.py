"""Structured logs: one JSON object per line on standard error."""

import logging
import sys
from typing import cast

import structlog


def configure(service: str, level: str) -> None:
    """Send the service's and its libraries' logs to standard error as JSON lines."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.dict_tracebacks,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)
    # Libraries may log what they handle; only their warnings pass, and never at DEBUG.
    logging.basicConfig(
        level=logging.WARNING,
        stream=sys.stderr,
        format='{"service": "' + service + '", "library": "%(name)s", "level": "%(levelname)s"}',
    )


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger for one module; it never gets texts, personal values or secrets."""
    return cast(structlog.stdlib.BoundLogger, structlog.get_logger(module=name))
