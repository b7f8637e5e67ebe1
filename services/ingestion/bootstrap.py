"""The one place that chooses ingestion's real adapters."""

from pathlib import Path

from services.ingestion.adapters.parse import Limits, ParserPool
from services.ingestion.adapters.quarantine import StoredQuarantine
from services.ingestion.adapters.sql import SqlCatalogue
from services.ingestion.adapters.tables import OUTBOX
from services.ingestion.consumers import handlers, to_event
from services.ingestion.handlers import Intake
from services.ingestion.rpc import IngestionServicer
from services.ingestion.settings import Settings, decode_key
from tailor.api.ingestion.v1.ingestion_pb2_grpc import add_IngestionServiceServicer_to_server
from tailor.events.consumer import Consumer
from tailor.events.outbox import Outbox
from tailor.events.producer import KafkaProducer
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
        Limits(settings.parse_seconds, settings.parse_cpu_seconds, settings.parse_memory_bytes), settings.parse_workers
    )
    runtime.on_stop(parser.close)
    engine = connect(settings.database_url.get_secret_value())
    runtime.on_stop(engine.dispose)
    runtime.wait_for("database", lambda: migrate(engine, MIGRATIONS))
    producer = runtime.wait_for("kafka", lambda: KafkaProducer.from_settings(settings, NAME))
    runtime.on_stop(producer.close)
    outbox = Outbox(engine, OUTBOX, producer)
    digest_key = decode_key(settings.digest_key)
    intake = Intake(
        parser=parser,
        quarantine=StoredQuarantine(S3Store.from_settings(settings), decode_key(settings.quarantine_key)),
        catalogue=SqlCatalogue(engine, outbox, to_event, digest_key),
        digest_key=digest_key,
        max_file_bytes=settings.max_file_bytes,
        max_chars=settings.max_chars,
    )
    servicers = [(add_IngestionServiceServicer_to_server, IngestionServicer(intake))]
    runtime.serve(RpcServer(settings, NAME, servicers=servicers, authenticator=authenticator(settings, NAME)))
    runtime.spawn("outbox", outbox.run)
    runtime.spawn("consumer", Consumer(settings, service=NAME, topics=handlers(intake), producer=producer).run)
    runtime.ready()
