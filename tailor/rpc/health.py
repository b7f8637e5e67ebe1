"""Health of a whole service, open to everybody, and of names in it, visible to keys that may use them."""

import threading
from collections.abc import Callable, Iterable
from typing import Any

from grpc_health.v1 import health, health_pb2

from tailor.errors import TailorError

STATES = health_pb2.HealthCheckResponse
# Looked up in place of a name that is unknown or hidden from the caller. No name equals it.
UNKNOWN = health_pb2.HealthCheckRequest(service="\0")

MayUse = Callable[[Iterable[tuple[str, str | bytes]], str], bool]


class NamedHealth(health.HealthServicer):
    """Added names are SERVING while the whole service is. `may_use` decides by a call's metadata whether it may ask for a name."""

    def __init__(self, may_use: MayUse) -> None:
        super().__init__()
        self._may_use = may_use
        self._names: set[str] = set()
        self._serving = False
        self._changing = threading.Lock()
        self.set_serving(False)

    def set_serving(self, serving: bool) -> None:
        """Set the health of the service and of every name."""
        with self._changing:
            self._serving = serving
            for name in ("", *self._names):
                self.set(name, STATES.SERVING if serving else STATES.NOT_SERVING)

    def set_known(self, name: str, known: bool) -> None:
        """Add or remove a name that is served here."""
        with self._changing:
            if known:
                self._names.add(name)
                self.set(name, STATES.SERVING if self._serving else STATES.NOT_SERVING)
            elif name in self._names:
                self._names.discard(name)
                self.set(name, STATES.SERVICE_UNKNOWN)

    def Check(self, request: Any, context: Any) -> Any:
        """Answers NOT_FOUND for a name that is not served here or hidden from the caller."""
        known = not request.service or (request.service in self._names and self._may_ask(request.service, context))
        return super().Check(request if known else UNKNOWN, context)

    def Watch(self, request: Any, context: Any, send_response_callback: Any = None) -> Any:
        """Streams SERVICE_UNKNOWN for a name that is hidden from the caller, and for any other until it is served here."""
        visible = not request.service or self._may_ask(request.service, context)
        return super().Watch(request if visible else UNKNOWN, context, send_response_callback)

    def _may_ask(self, name: str, context: Any) -> bool:
        try:
            return self._may_use(context.invocation_metadata(), name)
        except TailorError:
            return False
