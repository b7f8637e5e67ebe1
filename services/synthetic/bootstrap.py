"""The one place that chooses synthetic's real adapters."""

import threading
import time
from pathlib import Path

from services.synthetic import handlers
from services.synthetic.adapters import tables
from services.synthetic.adapters.erasures import SqlHoldings
from services.synthetic.adapters.minhash import MinHashNearDuplicates
from services.synthetic.adapters.parquet import ParquetWriter
from services.synthetic.adapters.registry import RegistryDocuments
from services.synthetic.adapters.sketches import MinHashSketcher, SqlSketches
from services.synthetic.adapters.sql import SqlRepository
from services.synthetic.adapters.teacher import OpenAiTeacher
from services.synthetic.comparing import Comparison
from services.synthetic.consumers import SPECIALISTS, Consumers
from services.synthetic.domain import RowLimits
from services.synthetic.erasures import Eraser
from services.synthetic.handlers import Synthetic
from services.synthetic.judging import PairLimits
from services.synthetic.lessons import Lessons, TeacherLimits
from services.synthetic.ports import Repository
from services.synthetic.rpc import SyntheticServicer
from services.synthetic.settings import Settings
from tailor.api.synthetic.v1.synthetic_pb2_grpc import add_SyntheticServiceServicer_to_server
from tailor.errors import Reason, Unavailable
from tailor.events.consumer import Consumer
from tailor.events.erased import ERASED, ErasedDocuments, forgetting
from tailor.events.outbox import Outbox
from tailor.events.producer import KafkaProducer
from tailor.events.table import TableReader
from tailor.rpc.channel import service_channel
from tailor.rpc.keys import authenticator
from tailor.rpc.server import RpcServer
from tailor.runtime import Runtime
from tailor.sql import connect, migrate
from tailor.storage.s3 import S3Store

NAME = "synthetic"
MIGRATIONS = Path(__file__).parent / "adapters" / "migrations"
TICK_SECONDS = 1.0


def build(runtime: Runtime, settings: Settings) -> None:
    """Connect, read the specialists, then serve, listen and build what is due."""
    engine = connect(settings.database_url.get_secret_value())
    runtime.on_stop(engine.dispose)
    runtime.wait_for("database", lambda: migrate(engine, MIGRATIONS))
    producer = runtime.wait_for("kafka", lambda: KafkaProducer.from_settings(settings, NAME))
    runtime.on_stop(producer.close)
    outbox = Outbox(engine, tables.outbox, producer)
    app = make_app(settings, SqlRepository(engine, outbox), runtime.erased_documents(settings))
    eraser = Eraser(app, SqlHoldings(engine))
    consumers = Consumers(app)
    reader = TableReader(settings, SPECIALISTS, consumers.specialist)
    sketcher = MinHashSketcher(settings.near_duplicate_threshold)
    servicer = SyntheticServicer(app, Comparison(SqlSketches(engine), sketcher, app.store), sketcher.threshold)
    servicers = [(add_SyntheticServiceServicer_to_server, servicer)]
    runtime.serve(RpcServer(settings, NAME, servicers=servicers, authenticator=authenticator(settings, NAME)))
    runtime.spawn("outbox", outbox.run)
    runtime.spawn("specialists", reader.run)
    runtime.wait_for(SPECIALISTS, lambda: _caught_up(reader))
    topics = {**consumers.topics(), ERASED: forgetting(NAME, eraser.forget, producer)}
    runtime.spawn("consumer", Consumer(settings, service=NAME, topics=topics, producer=producer).run)
    runtime.spawn("scheduler", lambda stop: _schedule(app, stop))
    runtime.ready()


def make_app(settings: Settings, repository: Repository, erased: ErasedDocuments) -> Synthetic:
    """The handlers' world."""
    store = S3Store.from_settings(settings)
    limits = RowLimits(
        max_row_tokens=settings.max_row_tokens,
        min_answer_tokens=settings.min_answer_tokens,
        rows_per_document=settings.rows_per_document,
        max_tokens=settings.max_tokens,
        held_out_percent=settings.held_out_percent,
        min_train_rows=settings.min_train_rows,
        min_held_out_rows=settings.min_held_out_rows,
    )
    return Synthetic(
        repository=repository,
        store=store,
        writer=ParquetWriter(store),
        near_duplicates=MinHashNearDuplicates(settings.near_duplicate_threshold),
        list_documents=RegistryDocuments(
            service_channel(settings, "registry", settings.registry_address, service=NAME)
        ),
        limits=limits,
        pair_limits=PairLimits(
            max_tokens=settings.max_pair_tokens,
            held_out_percent=settings.held_out_percent,
            min_train_rows=settings.min_train_rows,
            min_held_out_rows=settings.min_held_out_rows,
        ),
        lessons=_lessons(settings, repository),
        erased=erased,
    )


def _lessons(settings: Settings, repository: Repository) -> Lessons | None:
    if not settings.teacher_base_url:
        return None
    teacher = OpenAiTeacher(
        settings.teacher_base_url, settings.teacher_api_key.get_secret_value(), settings.teacher_model
    )
    limits = TeacherLimits(settings.teacher_max_passages, settings.teacher_attempts)
    return Lessons(teacher, repository, limits, time.sleep)


def _caught_up(reader: TableReader) -> None:
    if not reader.caught_up.is_set():
        raise Unavailable(Reason.NOT_CAUGHT_UP, "The specialists are still being read.")


def _schedule(app: Synthetic, stop: threading.Event) -> None:
    while not stop.wait(TICK_SECONDS):
        handlers.tick(app)
