"""The one place that chooses evaluation's real adapters."""

from functools import partial
from pathlib import Path

from services.evaluation import handlers
from services.evaluation.adapters import tables
from services.evaluation.adapters.erasures import SqlHoldings
from services.evaluation.adapters.inference import RemoteModels
from services.evaluation.adapters.metrics import measure
from services.evaluation.adapters.report import StoredReports
from services.evaluation.adapters.rows import DatasetRows
from services.evaluation.adapters.sql import SqlRepository
from services.evaluation.consumers import SERVING, SPECIALISTS, Consumers
from services.evaluation.domain import Parameters, Repository
from services.evaluation.erasures import forget
from services.evaluation.handlers import Evaluating, Patience
from services.evaluation.rpc import EvaluationServicer
from services.evaluation.settings import Settings
from tailor.api.evaluation.v1.evaluation_pb2_grpc import add_EvaluationServiceServicer_to_server
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

NAME = "evaluation"
MIGRATIONS = Path(__file__).parent / "adapters" / "migrations"


def build(runtime: Runtime, settings: Settings) -> None:
    """Connect, read what serves, then serve, listen and measure."""
    engine = connect(settings.database_url.get_secret_value())
    runtime.on_stop(engine.dispose)
    runtime.wait_for("database", lambda: migrate(engine, MIGRATIONS))
    producer = runtime.wait_for("kafka", lambda: KafkaProducer.from_settings(settings, NAME))
    runtime.on_stop(producer.close)
    outbox = Outbox(engine, tables.outbox, producer)
    app = make_app(settings, SqlRepository(engine, outbox), runtime.erased_documents(settings))
    holdings = SqlHoldings(engine)
    consumers = Consumers(app)
    servicers = [(add_EvaluationServiceServicer_to_server, EvaluationServicer(app))]
    runtime.serve(RpcServer(settings, NAME, servicers=servicers, authenticator=authenticator(settings, NAME)))
    runtime.spawn("outbox", outbox.run)
    for topic, apply in ((SPECIALISTS, consumers.specialist), (SERVING, consumers.serving)):
        _read_table(runtime, TableReader(settings, topic, apply), topic)
    topics = {**consumers.topics(), ERASED: forgetting(NAME, partial(forget, holdings, app.reports), producer)}
    runtime.spawn("consumer", Consumer(settings, service=NAME, topics=topics, producer=producer).run)
    runtime.spawn("worker", lambda stop: handlers.work(app, stop))
    runtime.ready()


def make_app(settings: Settings, repository: Repository, erased: ErasedDocuments) -> Evaluating:
    """The handlers' world."""
    store = S3Store.from_settings(settings)
    channel = service_channel(settings, "inference", settings.inference_address, service=NAME)
    return Evaluating(
        repository=repository,
        models=RemoteModels(channel, settings.repetition_penalty),
        rows=DatasetRows(store),
        metrics=measure,
        reports=StoredReports(store),
        parameters=Parameters(settings.max_rows, settings.max_tokens, settings.concurrency),
        patience=Patience(settings.give_up_seconds, settings.max_starts),
        erased=erased,
    )


def _read_table(runtime: Runtime, reader: TableReader, topic: str) -> None:
    """Read a table in a thread of its own; returns once all that is there was read."""

    def check() -> None:
        if not reader.caught_up.is_set():
            raise Unavailable(Reason.NOT_CAUGHT_UP, "The table is still being read.")

    runtime.spawn(topic, reader.run)
    runtime.wait_for(topic, check)
