"""An HTTP server for probes and metrics that nobody can fill."""

import contextlib
import socket
import sys
import threading
from http.server import ThreadingHTTPServer
from typing import Any

from tailor.logging import get_logger, place

log = get_logger(__name__)

MAX_CONNECTIONS = 64
IDLE_SECONDS = 10.0


class StatusServer(ThreadingHTTPServer):
    """A thread per connection, and at most MAX_CONNECTIONS of them: beyond that, the oldest connection is closed for the newest.

    A probe takes milliseconds, so what is oldest is not a probe.
    """

    request_queue_size = 128
    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        self._open: dict[socket.socket, None] = {}
        self._lock = threading.Lock()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Begin to serve a connection in a new thread."""
        request.settimeout(IDLE_SECONDS)
        with self._lock:
            if len(self._open) >= MAX_CONNECTIONS:
                oldest = next(iter(self._open))
                del self._open[oldest]
                with contextlib.suppress(OSError):
                    # Its thread ends by itself.
                    oldest.shutdown(socket.SHUT_RDWR)
            self._open[request] = None
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log a fault by its type and place. Connections that break or time out are not logged."""
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, OSError):
            log.error("status request failed", error=type(error).__name__, at=place(error))
