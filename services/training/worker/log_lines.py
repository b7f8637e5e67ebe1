"""A worker's log on its way to the service: the latest lines, of which the oldest are dropped when nobody takes them."""

from collections import deque
from collections.abc import MutableMapping
from typing import Any

from tailor.api.training.v1 import training_pb2 as pb

MAX_WAITING = 1000
MAX_LINES = 100
MAX_CHARACTERS = 1000
LEVELS = {"warning": "warning", "error": "error", "critical": "error"}
# What every line says of itself, and tracebacks, which may hold values.
UNSENT = frozenset({"service", "module", "level", "timestamp", "event", "exception", "exc_info", "stack_info"})


class LogLines:
    """A structlog processor that keeps what passes. Any thread may log and take."""

    def __init__(self) -> None:
        self._waiting: deque[pb.LogLine] = deque(maxlen=MAX_WAITING)

    def __call__(self, _: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Keep the event as a line, and let it pass."""
        fields = [f"{name}={value}" for name, value in event.items() if name not in UNSENT]
        message = " ".join([str(event["event"]), *fields])[:MAX_CHARACTERS]
        line = pb.LogLine(level=LEVELS.get(str(event.get("level")), "info"), message=message)
        line.create_time.GetCurrentTime()
        self._waiting.append(line)
        return event

    def take(self) -> list[pb.LogLine]:
        """The oldest lines, at most a hundred; they are gone then."""
        return [self._waiting.popleft() for _ in range(min(MAX_LINES, len(self._waiting)))]
