"""Chooses the real adapters of synthetic."""

import threading
from dataclasses import replace
from pathlib import Path

from sqlalchemy import Engine

from services.synthetic import handlers
from services.synthetic.adapters import tables
from services.synthetic.adapters.corpus import SqlCorpora
from services.synthetic.adapters.erasures import SqlHoldings
from services.synthetic.adapters.parquet import ParquetFiles
from services.synthetic.adapters.registry import RegistryDocuments
from services.synthetic.adapters.sketches import SqlSketches
from services.synthetic.adapters.sql import SqlRepository
from services.synthetic.adapters.tokenizers import StoredTokenizers
from services.synthetic.building.maker import StructureRows
from services.synthetic.consumers import SPECIALISTS, Consumers
from services.synthetic.erasures import DatasetEraser
from services.synthetic.near_duplicates.minhash import MinHashSketcher, similarity
from services.synthetic.near_duplicates.preparer import Preparer
from services.synthetic.ports import ListDocuments
from services.synthetic.rows.passages import passages
from services.synthetic.rpc import SyntheticServicer
from services.synthetic.settings import Settings
from tailor.api.synthetic.v1.synthetic_pb2_grpc import add_SyntheticServiceServicer_to_server
from tailor.events.erased import ERASED, forgetting
from tailor.events.outbox import Outbox
from tailor.runtime import Runtime
from tailor.storage.protocol import ObjectStore
from tailor.storage.s3 import S3Store

MIGRATIONS = Path(__file__).parent / "adapters" / "migrations"
TICK_SECONDS = 1.0


def build(runtime: Runtime, settings: Settings) -> None:
    """Connect, read the specialists, then serve, listen, prepare documents and build what is due."""
    engine, producer = runtime.database(settings, MIGRATIONS), runtime.producer(settings)
    registry = RegistryDocuments(runtime.channel(settings, "registry", settings.registry_address))
    outbox = runtime.outbox(engine, tables.outbox, producer)
    app = make_app(settings, engine, outbox, S3Store.from_settings(settings), registry)
    app = replace(app, erased=runtime.erased_documents(settings))
    consumers, eraser = Consumers(app), DatasetEraser(app, SqlHoldings(engine))
    servicer = SyntheticServicer(app, app.preparer, settings.near_duplicate_threshold)
    runtime.rpc(settings, [(add_SyntheticServiceServicer_to_server, servicer)])
    runtime.read_table(settings, SPECIALISTS, consumers.specialist)
    topics = {**consumers.topics(), ERASED: forgetting(runtime.name, eraser.forget, producer)}
    runtime.consume(settings, topics, producer)
    runtime.spawn("preparer", app.preparer.run)
    runtime.spawn("scheduler", lambda stop: _schedule(app, stop))
    runtime.ready()


def make_app(
    settings: Settings, engine: Engine, outbox: Outbox, store: ObjectStore, list_documents: ListDocuments
) -> handlers.Synthetic:
    """The handlers over a migrated database and a store; nothing is started, so benches use it too."""
    sketcher = MinHashSketcher(settings.near_duplicate_threshold, passages)
    return handlers.Synthetic(
        repository=SqlRepository(engine, outbox),
        corpora=SqlCorpora(engine),
        store=store,
        files=ParquetFiles(),
        maker=StructureRows(),
        tokenizers=StoredTokenizers(store),
        preparer=Preparer(SqlSketches(engine, similarity), sketcher, store),
        list_documents=list_documents,
        limits=settings.build_limits,
        pair_limits=settings.pair_limits,
    )


def _schedule(app: handlers.Synthetic, stop: threading.Event) -> None:
    while not stop.wait(TICK_SECONDS):
        handlers.tick(app)
