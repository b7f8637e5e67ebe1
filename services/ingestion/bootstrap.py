"""The one place that chooses ingestion's real adapters."""

from pathlib import Path

from services.ingestion.adapters.breaker import Breaker
from services.ingestion.adapters.erasures import Eraser
from services.ingestion.adapters.fetch import BucketFetcher, References
from services.ingestion.adapters.https import HttpsFetcher, trust
from services.ingestion.adapters.parse import Limits, ParserPool
from services.ingestion.adapters.quarantine import StoredQuarantine
from services.ingestion.adapters.registry import RegistryErasure
from services.ingestion.adapters.sql import SqlCatalogue
from services.ingestion.adapters.tables import OUTBOX
from services.ingestion.consumers import handlers, to_event
from services.ingestion.handlers import Intake, Withdrawals
from services.ingestion.rpc import IngestionServicer
from services.ingestion.settings import Settings, decode_buckets, decode_hosts, decode_key
from tailor.api.ingestion.v1.ingestion_pb2_grpc import add_IngestionServiceServicer_to_server
from tailor.events.consumer import Consumer
from tailor.events.erased import ERASED, forgetting
from tailor.events.outbox import Outbox
from tailor.events.producer import KafkaProducer
from tailor.rpc.channel import service_channel
from tailor.rpc.keys import authenticator
from tailor.rpc.server import RpcServer
from tailor.runtime import Runtime
from tailor.sql import connect, migrate
from tailor.storage.s3 import S3Store

NAME = "ingestion"
MIGRATIONS = Path(__file__).parent / "adapters" / "migrations"


def build(runtime: Runtime, settings: Settings) -> None:
    """Connect, then serve and listen."""
    parser = ParserPool(
        Limits(settings.parse_seconds, settings.parse_cpu_seconds, settings.parse_memory_bytes, settings.max_chars),
        settings.parse_workers,
    )
    runtime.on_stop(parser.close)
    engine = connect(settings.database_url.get_secret_value())
    runtime.on_stop(engine.dispose)
    runtime.wait_for("database", lambda: migrate(engine, MIGRATIONS))
    producer = runtime.wait_for("kafka", lambda: KafkaProducer.from_settings(settings, NAME))
    runtime.on_stop(producer.close)
    outbox = Outbox(engine, OUTBOX, producer)
    digest_key = decode_key(settings.digest_key)
    store = S3Store.from_settings(settings)
    eraser, erased = Eraser(engine, store), runtime.erased_documents(settings)
    catalogue = SqlCatalogue(engine, outbox, to_event, digest_key, erased)
    intake = Intake(
        parser=parser,
        quarantine=StoredQuarantine(store, decode_key(settings.quarantine_key)),
        catalogue=catalogue,
        digest_key=digest_key,
        max_file_bytes=settings.max_file_bytes,
        max_chars=settings.max_chars,
        fetcher=_fetcher(settings),
    )
    registry = service_channel(settings, "registry", settings.registry_address, service=NAME)
    runtime.on_stop(registry.close)
    forget = {ERASED: forgetting(NAME, eraser.forget, producer, eraser.lift)}
    listened = {**handlers(intake, Withdrawals(catalogue, RegistryErasure(registry))), **forget}
    servicers = [(add_IngestionServiceServicer_to_server, IngestionServicer(intake))]
    runtime.serve(RpcServer(settings, NAME, servicers=servicers, authenticator=authenticator(settings, NAME)))
    runtime.spawn("outbox", outbox.run)
    runtime.spawn("consumer", Consumer(settings, service=NAME, topics=listened, producer=producer).run)
    runtime.ready()


def _fetcher(settings: Settings) -> Breaker:
    store = S3Store.from_settings(settings.fetch_store())
    hosts = HttpsFetcher(decode_hosts(settings.fetch_hosts), trust(settings.fetch_ca_file), settings.fetch_seconds)
    return Breaker(References(BucketFetcher(decode_buckets(settings.fetch_buckets), store), hosts))
