"""Chooses the real adapters of synthetic."""

import threading
import time
from pathlib import Path

from services.synthetic import handlers
from services.synthetic.adapters import tables
from services.synthetic.adapters.dataset_finder import SqlDatasetFinder
from services.synthetic.adapters.erasures import SqlHoldings
from services.synthetic.adapters.import_barrier import RowAnonymizer
from services.synthetic.adapters.import_files import ParquetImportFiles
from services.synthetic.adapters.imports import SqlImports
from services.synthetic.adapters.parquet import ParquetWriter
from services.synthetic.adapters.registry import RegistryDocuments
from services.synthetic.adapters.row_reader import ParquetRowReader
from services.synthetic.adapters.sketches import SqlSketches
from services.synthetic.adapters.sql import SqlRepository
from services.synthetic.adapters.teacher import OpenAiTeacher
from services.synthetic.browsing import RowBrowser
from services.synthetic.consumers import SPECIALISTS, Consumers
from services.synthetic.erasures import DatasetEraser
from services.synthetic.import_rpc import ImportServicer
from services.synthetic.imports.handlers import ImportCommands
from services.synthetic.near_duplicates.count import NearDuplicateCounter
from services.synthetic.near_duplicates.minhash import MinHashNearDuplicates, MinHashSketcher
from services.synthetic.rpc import SyntheticServicer
from services.synthetic.settings import Settings
from services.synthetic.synthesis.synthesis import Synthesis
from tailor.api.synthetic.v1.imports_pb2_grpc import add_ImportServiceServicer_to_server
from tailor.api.synthetic.v1.synthetic_pb2_grpc import add_SyntheticServiceServicer_to_server
from tailor.events.erased import ERASED, forgetting
from tailor.runtime import Runtime
from tailor.storage.s3 import S3Store

MIGRATIONS = Path(__file__).parent / "adapters" / "migrations"
TICK_SECONDS = 1.0


def build(runtime: Runtime, settings: Settings) -> None:
    """Connect, read the specialists, then serve, listen and build what is due."""
    engine, producer = runtime.database(settings, MIGRATIONS), runtime.producer(settings)
    repository = SqlRepository(engine, runtime.outbox(engine, tables.outbox, producer))
    store, teacher = S3Store.from_settings(settings), OpenAiTeacher.from_settings(settings)
    sketcher = MinHashSketcher(settings.near_duplicate_threshold)
    app = handlers.Synthetic(
        repository=repository,
        store=store,
        writer=ParquetWriter(store),
        near_duplicates=MinHashNearDuplicates(settings.near_duplicate_threshold),
        list_documents=RegistryDocuments(runtime.channel(settings, "registry", settings.registry_address)),
        limits=settings.row_limits,
        pair_limits=settings.pair_limits,
        synthesis=Synthesis(teacher, repository, settings.teacher_limits, time.sleep) if teacher else None,
        erased=runtime.erased_documents(settings),
    )
    consumers, eraser = Consumers(app), DatasetEraser(app, SqlHoldings(engine))
    browser = RowBrowser(SqlDatasetFinder(engine), store, ParquetRowReader(store), app.erased)
    counter = NearDuplicateCounter(SqlSketches(engine), sketcher, store)
    servicer = SyntheticServicer(app, counter, sketcher.threshold, browser)
    barrier = RowAnonymizer(runtime.channel(settings, "anonymization", settings.anonymization_address))
    commands = ImportCommands(SqlImports(engine), ParquetImportFiles(store), barrier)
    importing = (add_ImportServiceServicer_to_server, ImportServicer(commands))
    runtime.rpc(settings, [(add_SyntheticServiceServicer_to_server, servicer), importing])
    runtime.read_table(settings, SPECIALISTS, consumers.specialist)
    topics = {**consumers.topics(), ERASED: forgetting(runtime.name, eraser.forget, producer)}
    runtime.consume(settings, topics, producer)
    runtime.spawn("scheduler", lambda stop: _schedule(app, stop))
    runtime.ready()


def _schedule(app: handlers.Synthetic, stop: threading.Event) -> None:
    while not stop.wait(TICK_SECONDS):
        handlers.tick(app)
