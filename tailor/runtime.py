"""The life of one service process, and the parts of which each service's `bootstrap.build` is made.

`main` reads the settings, builds the service in a thread, serves health and metrics meanwhile, and stops everything in order.
"""

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Protocol, TypeVar

import grpc
from prometheus_client import generate_latest
from sqlalchemy import Engine, Table

from tailor.api.events.v1.operations_pb2_grpc import add_EventServiceServicer_to_server
from tailor.errors import Reason, TailorError, Unavailable
from tailor.events.consumer import Consumer, Handler
from tailor.events.dead_letters import SqlDeadLetters
from tailor.events.erased import ERASED, ErasedDocuments
from tailor.events.expired import PublishGap
from tailor.events.faults import Faults
from tailor.events.lag import LagMonitor
from tailor.events.operations import EventParts, EventServicer
from tailor.events.outbox import Outbox, prepare_outbox
from tailor.events.producer import KafkaProducer, Producer
from tailor.events.published import PublishedRevisions, ask_registry
from tailor.events.raw_topics import RawTopics
from tailor.events.table import TableReader, read_event
from tailor.events.topics import load_topics
from tailor.heartbeats import Heartbeats
from tailor.jobs import JobKind, Jobs
from tailor.logging import configure, get_logger, place
from tailor.retry import Stopped, retry
from tailor.rpc.auth import Authenticator
from tailor.rpc.channel import service_channel
from tailor.rpc.keys import authenticator as registry_authenticator
from tailor.rpc.server import RpcServer
from tailor.settings import KafkaSettings, ServiceSettings
from tailor.sql import connect, migrate
from tailor.status_server import StatusServer

log = get_logger(__name__)

T = TypeVar("T")
S = TypeVar("S", bound=ServiceSettings)

# What adds a service to a server, and the service.
Servicers = Sequence[tuple[Callable[[Any, grpc.Server], None], object]]

# What threads have to end, and running calls too unless a service's settings give them longer.
GRACE_SECONDS = 8


class Server(Protocol):
    """A server that the runtime starts and stops."""

    def start(self) -> None:
        """Begin to accept calls."""
        ...

    def stop(self, grace: float) -> None:
        """Stop accepting calls; let running ones end within `grace` seconds."""
        ...

    def set_serving(self, serving: bool) -> None:
        """Set the health that callers see."""
        ...


class Runtime:
    """The life of one service process. `stop` is set when its threads must end. `faults` are the parts that do not work now.

    `heartbeats` are the parts that must show that they go on; `/livez` fails while one is silent. `grace_seconds` is what running calls
    have to end, between `end` and `stop`.
    """

    def __init__(self, name: str, grace_seconds: float = GRACE_SECONDS) -> None:
        self.name = name
        self.stop = threading.Event()
        self.faults = Faults()
        self.heartbeats = Heartbeats()
        self._grace_seconds = grace_seconds
        self._ending = threading.Event()
        self.events = EventParts(self.faults)
        self._waiting_for: str | None = "start"
        self._ready = False
        self._failed = threading.Event()
        self._servers: list[Server] = []
        self._threads: list[threading.Thread] = []
        self._closers: list[Callable[[], None]] = []
        self._published: PublishedRevisions | None = None

    def wait_for(self, what: str, check: Callable[[], T]) -> T:
        """Block until `check` raises no retryable TailorError, and return its result.

        `/readyz` and the log name `what` meanwhile. Raises Stopped if the process is asked to stop first.
        """
        self._waiting_for = what
        result = retry(
            check,
            stop=self.stop,
            on_wait=lambda error, _: self.faults.report(what, error),
        )
        self._waiting_for = None
        self.faults.clear(what)
        return result

    def serve(self, server: Server) -> None:
        """Start a server. Its health stays NOT_SERVING until `ready`."""
        server.start()
        self._servers.append(server)

    def spawn(self, name: str, work: Callable[[threading.Event], None]) -> None:
        """Run `work(stop)` in a thread. If it raises, the process ends with exit status 1, to be started again."""

        def work_or_fail() -> None:
            try:
                work(self.stop)
            except Stopped:
                return
            except TailorError as error:
                log.error("thread failed", thread=name, reason=error.reason)
                self.fail()
            except BaseException as error:  # noqa: BLE001 - the outermost frame of a thread: it crashes the process
                # The message could hold personal data; type and place cannot.
                log.error("thread crashed", thread=name, error=type(error).__name__, at=place(error))
                self.fail()

        thread = threading.Thread(target=work_or_fail, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def every(self, name: str, seconds: float, work: Callable[[], object]) -> None:
        """Call `work` in a thread every `seconds`. Its errors are logged, and it is called again; a defect ends the process."""

        def repeat(stop: threading.Event) -> None:
            while not stop.wait(seconds):
                try:
                    work()
                except TailorError as error:
                    log.warning("periodic work failed", work=name, reason=error.reason)

        self.spawn(name, repeat)

    def on_stop(self, close: Callable[[], None]) -> None:
        """Call `close` when the process ends, in reverse order of registration."""
        self._closers.append(close)

    def ready(self) -> None:
        """Report the service as healthy from now on."""
        self._ready, self._waiting_for = True, None
        for server in self._servers:
            server.set_serving(True)
        log.info("ready")

    def status(self) -> dict[str, object]:
        """The answer of `/readyz`. `serving` means that calls are accepted, `ready` that every part works too."""
        is_ending = self._ending.is_set() or self.stop.is_set()
        serving, faults = self._ready and not is_ending, self.faults.all()
        waiting = [f"{fault.part}: {fault.reason}. {fault.message}" for fault in faults if fault.waits]
        return {
            "service": self.name,
            "ready": serving and not waiting,
            "serving": serving,
            "waiting_for": self._waiting_for or next(iter(waiting), None),
            "faults": [asdict(fault) for fault in faults],
        }

    def database(self, settings: ServiceSettings, migrations: Path) -> Engine:
        """Connect to the service's database and upgrade its schema. Closed when the process ends."""
        engine = connect(settings.database_url.get_secret_value())
        self.on_stop(engine.dispose)
        self.wait_for("database", lambda: migrate(engine, migrations))
        letters = SqlDeadLetters(engine)
        self.wait_for("database", letters.prepare)
        self.events.letters = letters
        return engine

    def producer(self, settings: KafkaSettings) -> KafkaProducer:
        """Connect a producer to the broker and watch the log in a thread. Closed when the process ends."""
        producer = self.wait_for("kafka", lambda: KafkaProducer.from_settings(settings, self.name))
        self.on_stop(producer.close)
        self.events.watch = LagMonitor(settings, self.name, self.faults)
        self.spawn("log watch", self.events.watch.run)
        return producer

    def outbox(self, engine: Engine, table: Table, producer: Producer) -> Outbox:
        """Make an outbox that a thread relays."""
        outbox = Outbox(engine, table, producer, faults=self.faults)
        self.wait_for("database", lambda: prepare_outbox(engine))
        self.events.outbox = outbox
        self.spawn("outbox", outbox.run)
        return outbox

    def jobs(self, engine: Engine, table: Table, kinds: Sequence[JobKind]) -> None:
        """Run the service's jobs in a thread and its pool."""
        self.spawn("jobs", Jobs(engine, table, kinds, faults=self.faults).run)

    def consume(
        self,
        settings: KafkaSettings,
        handlers: Mapping[str, Handler],
        producer: Producer,
        publish_gap: PublishGap | None = None,
    ) -> None:
        """Handle the topics' events in a thread, as one member of the service's group.

        `publish_gap` publishes what expired before it was read; by default, a dead letter with a count.
        """
        if self.events.watch is not None:
            self.events.watch.add_shared(handlers)
        self.events.handlers = dict(handlers)
        self.events.read = lambda place: read_event(settings, place.topic, place.partition, place.offset)
        consumer = Consumer(
            settings,
            service=self.name,
            topics=handlers,
            producer=producer,
            faults=self.faults,
            letters=self.events.letters,
            publish_gap=publish_gap,
            heartbeats=self.heartbeats,
        )
        self.spawn("consumer", consumer.run)
        if self.events.letters is not None:
            self.spawn("parked events", consumer.parked(self.events.letters, self.events.read).run)
        kept = [topic for topic in load_topics().values() if topic.name in handlers and topic.unread_retention_hours]
        if kept:
            self.spawn("raw topics", RawTopics(settings, self.name, kept, self.faults).run)

    def read_table(self, settings: KafkaSettings, topic: str, apply: Handler, *, wait: bool = True) -> None:
        """Apply every event of a topic in a thread, from its beginning. With `wait`, blocks until all existing events have been applied."""
        if self.events.watch is not None:
            self.events.watch.add_table(topic)
        reader = TableReader(settings, topic, apply, self.faults)
        self.spawn(topic, reader.run)
        if not wait:
            return

        def check() -> None:
            if not reader.caught_up.is_set():
                raise Unavailable(Reason.NOT_CAUGHT_UP, f"{topic} is still being read from its beginning.")

        self.wait_for(f"{topic} to be read from its beginning", check)

    def read_published(self, settings: ServiceSettings, topic: str, apply: Handler) -> None:
        """Like `read_table`, for the registry's topics: an event that claims more than it published is logged as an error and skipped."""
        if self._published is None:
            channel = self.channel(settings, "registry", settings.registry_address)
            self._published = PublishedRevisions(lambda: self.wait_for("registry", lambda: ask_registry(channel)))
        self.read_table(settings, topic, self._published.checked(apply))

    def erased_documents(self, settings: KafkaSettings, patience_seconds: float = 0.0) -> ErasedDocuments:
        """The ids of erased documents, which a thread keeps up to date. Blocks until all existing erasures are known.

        A service that drops what is erased without a word gives `patience_seconds`, to wait for a lift that is on its way.
        """
        erased = ErasedDocuments(patience_seconds)
        self.read_table(settings, ERASED, erased.apply)
        return erased

    def channel(self, settings: ServiceSettings, target: str, address: str) -> grpc.Channel:
        """Open a channel to another service, signed with this service's key. Closed when the process ends."""
        channel = service_channel(settings, target, address, service=self.name)
        self.on_stop(channel.close)
        return channel

    def rpc(
        self,
        settings: ServiceSettings,
        servicers: Servicers,
        authenticator: Authenticator | None = None,
        **options: Any,
    ) -> RpcServer:
        """Start a gRPC server, with the EventService too. API keys are verified by the registry unless an authenticator is given."""
        server = RpcServer(
            settings,
            self.name,
            servicers=[*servicers, (add_EventServiceServicer_to_server, EventServicer(self.events))],
            authenticator=authenticator or registry_authenticator(settings, self.name),
            **options,
        )
        self.serve(server)
        return server

    def run_until_stopped(self) -> int:
        """Block until `stop` is set, then stop everything in order. Returns the exit status."""
        self.stop.wait()
        self._stop_servers(GRACE_SECONDS)
        for thread in self._threads:
            thread.join(GRACE_SECONDS)
        for close in reversed(self._closers):
            close()
        log.info("stopped")
        return 1 if self._failed.is_set() else 0

    def end(self) -> None:
        """Accept no more calls, let running ones end within the grace, then set `stop`. Returns at once; a repeated call has no effect.

        Meanwhile every thread goes on, so that an answer that ends late is still recorded and published.
        """
        if not self._ending.is_set():
            self._ending.set()
            threading.Thread(target=self._drain, name="end", daemon=True).start()

    def _drain(self) -> None:
        log.info("ending", grace_seconds=self._grace_seconds)
        self._stop_servers(self._grace_seconds)
        self.stop.set()

    def _stop_servers(self, grace: float) -> None:
        """Stop all servers at the same time. Blocks for up to `grace` seconds."""
        for server in self._servers:
            server.set_serving(False)
        stopping = [threading.Thread(target=server.stop, args=(grace,), daemon=True) for server in self._servers]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join()

    def fail(self) -> None:
        """Stop the process with exit status 1, so that it is started again. Returns at once."""
        self._failed.set()
        self.stop.set()


def main(name: str, settings_type: type[S], build: Callable[[Runtime, S], None]) -> None:
    """Run a service until SIGTERM or SIGINT. Never returns."""
    settings = settings_type()
    configure(name, settings.log_level)
    refuse_unknown(settings_type, os.environ.get("TAILOR_OWNER_SETTINGS", ""))
    runtime = Runtime(name, settings.stop_grace_seconds)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: runtime.end())
    status = open_status_server(settings.status_host, settings.status_port, runtime)
    builder = threading.Thread(target=_build, args=(runtime, settings, build), name="build", daemon=True)
    builder.start()
    status_code = runtime.run_until_stopped()
    status.shutdown()
    sys.stderr.flush()
    # Native threads of model libraries may never end; our own resources are closed by now.
    os._exit(status_code)


def refuse_unknown(settings_type: type[ServiceSettings], given: str) -> None:
    """End the process if the owner gave a setting that the service does not have. `given` has names, joined by commas."""
    unknown = sorted(set(filter(None, given.split(","))) - set(settings_type.model_fields))
    if unknown:
        log.error("unknown settings", settings=unknown, known=sorted(settings_type.model_fields))
        sys.exit(2)


def _build(runtime: Runtime, settings: S, build: Callable[[Runtime, S], None]) -> None:
    try:
        build(runtime, settings)
    except Stopped:
        return
    except TailorError as error:
        log.error("cannot start", reason=error.reason, message=error.message, fields=error.field_violations)
        runtime.fail()
    except BaseException:
        runtime.fail()
        raise


def open_status_server(host: str, port: int, runtime: Runtime) -> StatusServer:
    """Serve `/livez`, `/readyz` and `/metrics` in a thread, and nothing else. No credentials are asked for. Port 0 takes a free one."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/livez":
                silent = runtime.heartbeats.silent()
                body = json.dumps({"silent": silent}).encode()
                self._answer(503 if silent else 200, "application/json", body)
            elif self.path == "/readyz":
                status = runtime.status()
                # The code decides who gets calls, and a service answers calls while the broker is away.
                self._answer(200 if status["serving"] else 503, "application/json", json.dumps(status).encode())
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
            """Do not log probes."""

    server = StatusServer((host, port), Handler)
    threading.Thread(target=server.serve_forever, name="status", daemon=True).start()
    return server
