"""Builds the service: the one place that chooses its real adapters and connects them to handlers, topics and gRPC."""

from functools import partial
from pathlib import Path

from services.ingestion.adapters.barrier import POLICY_APPLIED, CurrentBarrier
from services.ingestion.adapters.breaker import CircuitBreaker
from services.ingestion.adapters.erasures import DocumentEraser, RegistryErasures
from services.ingestion.adapters.fetch import SchemeFetcher
from services.ingestion.adapters.parse import ParserPool
from services.ingestion.adapters.quarantine import Quarantine
from services.ingestion.adapters.references import ReferenceCipher
from services.ingestion.adapters.replays import REPLAY, SqlReplays
from services.ingestion.adapters.sql import SqlCatalogue, adopt_barrier
from services.ingestion.adapters.tables import JOBS, OUTBOX
from services.ingestion.consumers import make_handlers
from services.ingestion.handlers import Intake
from services.ingestion.replay_rpc import ReplayServicer
from services.ingestion.replays import ReplayRunner
from services.ingestion.rpc import IngestionServicer
from services.ingestion.schema import KINDS
from services.ingestion.settings import Settings
from tailor.api.events.v1 import documents_pb2
from tailor.api.ingestion.v1.ingestion_pb2_grpc import add_IngestionServiceServicer_to_server
from tailor.api.ingestion.v1.replay_pb2_grpc import add_ReplayServiceServicer_to_server
from tailor.events.erased import ERASED, forgetting
from tailor.events.expired import reject_gap
from tailor.events.operations import Backpressure
from tailor.jobs import JobKind
from tailor.keys import decode_key
from tailor.runtime import Runtime, Servicers
from tailor.storage.s3 import S3Store

MIGRATIONS = Path(__file__).parent / "adapters" / "migrations"
SWEEP_SECONDS = 3_600.0


def build(runtime: Runtime, settings: Settings) -> None:
    """Connect, then serve and consume."""
    parser = ParserPool.from_settings(settings)
    runtime.on_stop(parser.close)
    engine = runtime.database(settings, MIGRATIONS)
    producer = runtime.producer(settings)
    outbox = runtime.outbox(engine, OUTBOX, producer)
    store, digest_key = S3Store.from_settings(settings), decode_key(settings.digest_key)
    quarantine_key = decode_key(settings.quarantine_key)
    barrier = CurrentBarrier(adopt=partial(adopt_barrier, engine))
    runtime.read_table(settings, POLICY_APPLIED, barrier.apply)
    references, erased = ReferenceCipher(quarantine_key), runtime.erased_documents(settings)
    catalogue = SqlCatalogue(engine, outbox, digest_key, erased, barrier=barrier, references=references)
    quarantine = Quarantine(store, quarantine_key, settings.keep_text_days)
    intake = Intake(
        parse=parser.parse,
        quarantine=quarantine,
        catalogue=catalogue,
        digest_key=digest_key,
        max_file_bytes=settings.max_file_bytes,
        max_chars=settings.max_chars,
        fetcher=CircuitBreaker(SchemeFetcher.from_settings(settings)),
    )
    erasures = RegistryErasures(runtime.channel(settings, "registry", settings.registry_address))
    eraser = DocumentEraser(engine, store)
    forget = {ERASED: forgetting(runtime.name, eraser.forget, producer, eraser.lift)}
    replays = SqlReplays(engine, catalogue, references, digest_key)
    servicers: Servicers = [
        (add_IngestionServiceServicer_to_server, IngestionServicer(intake, Backpressure(runtime.events).admit)),
        (add_ReplayServiceServicer_to_server, ReplayServicer(replays, barrier)),
    ]
    runtime.rpc(settings, servicers)
    runner = ReplayRunner(intake, replays, settings.replay_documents_per_minute)
    kinds = [JobKind(REPLAY, runner.run), JobKind("kept texts", quarantine.run, every=SWEEP_SECONDS)]
    runtime.jobs(engine, JOBS, kinds)
    expired = reject_gap(producer, runtime.name, documents_pb2.STAGE_INGESTION, tuple(KINDS))
    runtime.consume(settings, {**make_handlers(intake, erasures), **forget}, producer, expired)
    runtime.ready()
