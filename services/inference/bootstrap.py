"""The one place of inference that chooses real adapters."""

import importlib.util
import threading
from collections.abc import Callable
from functools import partial
from typing import Protocol

from services.inference import handlers
from services.inference.answering import Inference
from services.inference.consumers import SERVING, SPECIALISTS, ServingConsumer, SpecialistConsumer
from services.inference.domain import Engine, Turns
from services.inference.handlers import Door
from services.inference.keeping import Keeper, Keeping
from services.inference.private import Private
from services.inference.rpc import NAME, InferenceServicer
from services.inference.serving import Admission, Shelf, Table
from services.inference.settings import Settings
from tailor.api.inference.v1 import inference_pb2_grpc
from tailor.errors import Reason, Unavailable
from tailor.events.envelope import Event, new_id
from tailor.events.erased import ERASED, forgetting
from tailor.events.producer import KafkaProducer, Producer
from tailor.events.table import TableReader
from tailor.logging import get_logger
from tailor.rpc.auth import Authenticator
from tailor.rpc.channel import service_channel
from tailor.rpc.keys import authenticator
from tailor.rpc.server import RpcServer
from tailor.runtime import Runtime
from tailor.storage.s3 import S3Store

log = get_logger(__name__)

SPARE_THREADS = 16
POLL_SECONDS = 0.5


class WatchedEngine(Engine, Protocol):
    """An engine that can say that it died."""

    def watch(self, stop: threading.Event) -> None:
        """Block until told to stop; Unavailable if the engine dies."""
        ...


def build(runtime: Runtime, settings: Settings) -> None:
    """Open the doors, load the base and all that serves, then be ready."""
    door = Door()
    auth = authenticator(settings, NAME)
    server = _open_doors(runtime, settings, door, auth)
    store = S3Store.from_settings(settings)
    producer = runtime.wait_for("broker", partial(KafkaProducer.from_settings, settings, source=NAME))
    runtime.on_stop(producer.close)
    keeping, private = Keeping(), Private()
    _read(runtime, settings, SPECIALISTS, SpecialistConsumer(keeping, private).apply)
    inference = _load(runtime, settings, store, producer, keeping, private=private, table=Table(server.set_known))
    _read_serving(runtime, settings, inference)
    _read_erased(runtime, settings, inference, producer)
    door.open(inference)
    runtime.ready()
    _state_presence(runtime, settings, producer)


def _open_doors(runtime: Runtime, settings: Settings, door: Door, auth: Authenticator) -> RpcServer:
    threads = settings.max_concurrent + settings.max_queued + SPARE_THREADS
    servicers = [(inference_pb2_grpc.add_InferenceServiceServicer_to_server, InferenceServicer(door))]
    server = RpcServer(settings, NAME, servicers=servicers, authenticator=auth, max_workers=threads)
    runtime.serve(server)
    if settings.http_port:
        from services.inference.adapters.http import Address, create_app, serve

        app = create_app(door, auth, threads)
        where = Address(
            settings.http_host,
            settings.http_port,
            certificate=settings.tls_certificate_file,
            key=settings.tls_key_file,
            client_ca=settings.tls_client_ca_file,
        )
        runtime.spawn("http", partial(serve, app, where))
    return server


def _load(
    runtime: Runtime,
    settings: Settings,
    store: S3Store,
    producer: Producer,
    keeping: Keeping,
    *,
    private: Private,
    table: Table,
) -> Inference:
    from services.inference.adapters.barrier import RemoteBarrier
    from services.inference.adapters.drafts import DraftArchive, DraftBucket
    from services.inference.adapters.journal import Journal
    from services.inference.adapters.models import AdapterLibrary, fetch_base
    from services.inference.adapters.statements import DraftEvents, ServedEvents

    cache = settings.data_dir / "models"
    make_engine = choose_engine(settings)
    base = runtime.wait_for(f"base {settings.base}", partial(fetch_base, store, settings.base, cache))
    journal = Journal(settings.data_dir / f"drafts-{settings.replica}.sqlite", settings.max_waiting_drafts)
    drafts = DraftEvents(producer, journal, settings.base)
    runtime.spawn("drafts", drafts.run)
    barrier = RemoteBarrier(service_channel(settings, "anonymization", settings.anonymization_address, service=NAME))
    texts = Keeper(keeping, barrier, DraftBucket(store), drafts)
    runtime.spawn("texts", texts.run)
    engine = make_engine(base.folder)
    runtime.on_stop(engine.close)
    runtime.spawn("engine", engine.watch)
    library = AdapterLibrary(store, base, cache, settings.max_lora_rank)
    return Inference(
        base=settings.base,
        engine=engine,
        shelf=Shelf(engine, library, settings.max_loras),
        table=table,
        admission=Admission(settings.max_concurrent, settings.max_queued),
        turns=choose_turns(settings),
        drafts=drafts,
        texts=texts,
        archive=DraftArchive(service_channel(settings, "registry", settings.registry_address, service=NAME), store),
        reports=ServedEvents(producer, settings.replica),
        private=private,
        barrier=barrier,
        digest_key=settings.digest_key.get_secret_value().encode(),
        new_draft_id=partial(new_id, "drf"),
    )


def _read_serving(runtime: Runtime, settings: Settings, inference: Inference) -> None:
    def persist(what: str, work: Callable[[], None]) -> None:
        runtime.wait_for(what, work)

    _read(runtime, settings, SERVING, ServingConsumer(inference, persist).apply)


def _read(runtime: Runtime, settings: Settings, topic: str, apply: Callable[[Event], None]) -> None:
    """Apply all of a topic in a thread; returns once what is there is applied."""
    reader = TableReader(settings, topic, apply)
    runtime.spawn(topic, reader.run)

    def caught_up() -> None:
        if not reader.caught_up.wait(POLL_SECONDS):
            raise Unavailable(Reason.NOT_CAUGHT_UP, f"Not all of {topic} is applied yet.")

    runtime.wait_for(f"{topic} to be read from its beginning", caught_up)


def _read_erased(runtime: Runtime, settings: Settings, inference: Inference, producer: Producer) -> None:
    """Every replica lets go of what it holds itself; the first one's answer counts."""
    forget = forgetting(NAME, partial(handlers.forget_erased, inference), producer)
    reader = TableReader(settings, ERASED, lambda event: runtime.wait_for(ERASED, lambda: forget(event)))
    runtime.spawn("erased", reader.run)


def _state_presence(runtime: Runtime, settings: Settings, producer: Producer) -> None:
    """Once ready: all that serves was loaded and reported before, so that no replica counts as ready without."""
    from services.inference.adapters.statements import Presence

    runtime.spawn("presence", Presence(producer, settings.replica, settings.base).run)


def choose_engine(settings: Settings) -> "Callable[..., WatchedEngine]":
    """The engine's maker, by the setting: `auto` takes vLLM where it is installed."""
    wanted = settings.engine
    if wanted == "auto":
        wanted = "vllm" if importlib.util.find_spec("vllm") else "transformers"
    log.info("engine", engine=wanted)
    if wanted == "vllm":
        from services.inference.adapters import vllm_engine

        vllm_engine.prepare_environment(settings.kv_cache_gib, settings.compute_threads)
        threading.Thread(target=vllm_engine.import_ahead, name="import", daemon=True).start()
        return partial(
            vllm_engine.VllmEngine,
            context_length=settings.max_model_len,
            max_loras=settings.max_loras,
            max_lora_rank=settings.max_lora_rank,
            max_concurrent=settings.max_concurrent,
        )
    from services.inference.adapters.transformers_engine import TransformersEngine

    return partial(TransformersEngine, context_length=settings.max_model_len, threads=settings.compute_threads)


def choose_turns(settings: Settings) -> Turns:
    """Turns by a lock file where training shares the machine."""
    from services.inference.adapters.compute import FileTurns, FreeTurns

    return FileTurns(settings.compute_lock) if settings.compute_lock else FreeTurns()
