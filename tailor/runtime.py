"""One process of a service: waits for what it needs, runs its threads, says how it is, and stops in order."""

import json
import os
import random
import signal
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Protocol, TypeVar

from prometheus_client import generate_latest

from tailor.errors import TailorError
from tailor.logging import configure, get_logger, place
from tailor.settings import ServiceSettings

log = get_logger(__name__)

T = TypeVar("T")
S = TypeVar("S", bound=ServiceSettings)

GRACE_SECONDS = 8


class Server(Protocol):
    """What the runtime needs of an RPC server."""

    def start(self) -> None:
        """Begin to accept calls."""
        ...

    def stop(self, grace: float) -> None:
        """Stop accepting, let running calls end within the grace (seconds)."""
        ...

    def set_serving(self, serving: bool) -> None:
        """State health."""
        ...


class Stopped(BaseException):
    """Told to stop while waiting for a dependency."""


class Runtime:
    """The life of one service process. `stop` is set when it must end."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.stop = threading.Event()
        self._waiting_for: str | None = "start"
        self._ready = False
        self._failed = threading.Event()
        self._servers: list[Server] = []
        self._threads: list[threading.Thread] = []
        self._closers: list[Callable[[], None]] = []

    def wait_for(self, what: str, check: Callable[[], T]) -> T:
        """The check's result, once it raises no retryable error; meanwhile `/readyz` and the log say what is waited for."""
        delay = 0.2
        self._waiting_for = what
        while True:
            try:
                result = check()
            except TailorError as error:
                if not error.retryable:
                    raise
                log.warning("waiting", waiting_for=what, reason=error.reason)
                if self.stop.wait(delay * random.uniform(0.7, 1.0)):  # noqa: S311 - jitter, not a secret
                    raise Stopped from None
                delay = min(delay * 1.7, 2.0)
            else:
                self._waiting_for = None
                return result

    def serve(self, server: Server) -> None:
        """Start a server; its health stays NOT_SERVING until `ready`."""
        server.start()
        self._servers.append(server)

    def spawn(self, name: str, work: Callable[[threading.Event], None]) -> None:
        """Run work in a thread until `stop`; if it raises, the process exits with 1, to be started again."""

        def guarded() -> None:
            try:
                work(self.stop)
            except TailorError as error:
                log.error("thread failed", thread=name, reason=error.reason)
                self._crash()
            except BaseException as error:  # noqa: BLE001 - the outermost frame of a thread: it crashes the process
                # The traceback's text could hold a value; its type and place cannot.
                log.error("thread crashed", thread=name, error=type(error).__name__, at=place(error))
                self._crash()

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def on_stop(self, close: Callable[[], None]) -> None:
        """Call this when the process ends; the last one added runs first."""
        self._closers.append(close)

    def ready(self) -> None:
        """From now on the service is healthy."""
        self._ready = True
        for server in self._servers:
            server.set_serving(True)
        log.info("ready")

    def state(self) -> dict[str, object]:
        """What `/readyz` answers."""
        return {"service": self.name, "ready": self._ready and not self.stop.is_set(), "waiting_for": self._waiting_for}

    def run_until_stopped(self) -> int:
        """Block until told to stop, then stop in order; the exit status."""
        self.stop.wait()
        for server in self._servers:
            server.set_serving(False)
            server.stop(GRACE_SECONDS)
        for thread in self._threads:
            thread.join(GRACE_SECONDS)
        for close in reversed(self._closers):
            close()
        log.info("stopped")
        return 1 if self._failed.is_set() else 0

    def _crash(self) -> None:
        self._failed.set()
        self.stop.set()


def main(name: str, settings_type: type[S], build: Callable[[Runtime, S], None]) -> None:
    """Run a service: read settings, build it, serve until SIGTERM or SIGINT."""
    settings = settings_type()
    configure(name, settings.log_level)
    runtime = Runtime(name)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: runtime.stop.set())
    status = _status_server(settings.status_host, settings.status_port, runtime)
    builder = threading.Thread(target=_build, args=(runtime, settings, build), name="build", daemon=True)
    builder.start()
    status_code = runtime.run_until_stopped()
    status.shutdown()
    sys.stderr.flush()
    # Native threads of model libraries may not end by themselves; everything of ours is closed by now.
    os._exit(status_code)


def _build(runtime: Runtime, settings: S, build: Callable[[Runtime, S], None]) -> None:
    try:
        build(runtime, settings)
    except Stopped:
        return
    except TailorError as error:
        log.error("cannot start", reason=error.reason, message=error.message, fields=error.field_violations)
        runtime._crash()
    except BaseException:
        runtime._crash()
        raise


def _status_server(host: str, port: int, runtime: Runtime) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/livez":
                self._answer(200, "application/json", b"{}")
            elif self.path == "/readyz":
                state = runtime.state()
                self._answer(200 if state["ready"] else 503, "application/json", json.dumps(state).encode())
            elif self.path == "/metrics":
                self._answer(200, "text/plain; version=0.0.4", generate_latest())
            else:
                self._answer(404, "text/plain", b"not found\n")

        def _answer(self, code: int, content_type: str, body: bytes) -> None:
            self.send_response(code)
            self.send_header("content-type", content_type)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Probes are not logged."""

    server = ThreadingHTTPServer((host, port), Handler)
    threading.Thread(target=server.serve_forever, name="status", daemon=True).start()
    return server
