"""Noticing that a broker was lost, where it may forget what it acknowledged.

Apache Kafka keeps what it acknowledged. The embedded broker writes to disk about once a second, so that a killed one forgets
the last moment, offsets included. Where `kafka_resend_seconds` is set, producers do not number what they send (a broker that forgot
numbers refuses the next one), they state the last seconds again after a loss, and consumers go back to what is committed. Handlers
are idempotent, so that this changes nothing else.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable

CHECK_SECONDS = 0.5


class BrokerWatch:
    """Holds one connection to the broker. `losses` counts how often it broke, `lost_at` says when last (monotonic seconds)."""

    def __init__(self, bootstrap_server: str, returned: Callable[[], None] = lambda: None) -> None:
        host, _, port = bootstrap_server.rpartition(":")
        self._address = (host, int(port))
        self._returned = returned
        self._stop = threading.Event()
        self.losses = 0
        self.lost_at = 0.0
        self._thread = threading.Thread(target=self._run, name="broker-watch", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """End the watch."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(OSError), socket.create_connection(self._address, CHECK_SECONDS) as connection:
                if self.losses:
                    self._returned()
                self._hold(connection)
                self.lost_at = time.monotonic()
                self.losses += 1
            self._stop.wait(CHECK_SECONDS)

    def _hold(self, connection: socket.socket) -> None:
        """Return when the broker closes the connection."""
        while not self._stop.is_set():
            try:
                if not connection.recv(1):
                    return
            except TimeoutError:
                continue
            except OSError:
                return
