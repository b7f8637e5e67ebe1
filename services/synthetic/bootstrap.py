"""Chooses the real adapters of synthetic."""

import threading
from collections.abc import Container
from dataclasses import replace
from functools import partial
from pathlib import Path

from sqlalchemy import Engine

from services.synthetic import handlers
from services.synthetic.adapters import tables
from services.synthetic.adapters.admitted_origins import SqlOrigins
from services.synthetic.adapters.barrier import OverRedactionMeasure, ResidualLimits, RowAnonymizer
from services.synthetic.adapters.corpus import SqlCorpora
from services.synthetic.adapters.dataset_finder import SqlDatasetFinder
from services.synthetic.adapters.drawn_prompts import SqlDrawnPrompts
from services.synthetic.adapters.erasures import SqlHoldings
from services.synthetic.adapters.imports import SqlImports
from services.synthetic.adapters.inference import InferenceAnswers
from services.synthetic.adapters.registry import RegistryDocuments, RegistryQueue, RegistryScores
from services.synthetic.adapters.sketches import SqlSketches
from services.synthetic.adapters.sql import SqlRepository
from services.synthetic.adapters.synthesis_rows import SqlSynthesisRows
from services.synthetic.adapters.tokenizers import StoredTokenizers
from services.synthetic.browsing import RowBrowser
from services.synthetic.consumers import SPECIALISTS, Consumers
from services.synthetic.dataset_superseder import DatasetSuperseder
from services.synthetic.edited_rows import EditedRows
from services.synthetic.erasures import DatasetEraser
from services.synthetic.import_rpc import ImportServicer
from services.synthetic.imports.erasures import ImportEraser
from services.synthetic.imports.files import ImportFiles
from services.synthetic.imports.handlers import ImportCommands
from services.synthetic.imports.rows import ImportedRows
from services.synthetic.near_duplicates.minhash import MinHashSketcher, similarity
from services.synthetic.near_duplicates.preparer import DocumentPreparer
from services.synthetic.ports import ListDocuments
from services.synthetic.prompt_drawer import PromptDrawer
from services.synthetic.rows.passages import passages
from services.synthetic.rpc import SyntheticServicer
from services.synthetic.settings import Settings
from services.synthetic.synthesis_bootstrap import build_syntheses
from tailor.api.synthetic.v1.imports_pb2_grpc import add_ImportServiceServicer_to_server
from tailor.api.synthetic.v1.synthetic_pb2_grpc import add_SyntheticServiceServicer_to_server
from tailor.events.erased import ERASED, LIFT_SECONDS, confirm_forgotten, forgetting
from tailor.events.outbox import Outbox
from tailor.runtime import Runtime
from tailor.storage.protocol import ObjectStore
from tailor.storage.s3 import S3Store

MIGRATIONS = Path(__file__).parent / "adapters" / "migrations"
TICK_SECONDS = 1.0


def build(runtime: Runtime, settings: Settings) -> None:
    """Connect, read the specialists, then serve, listen, prepare documents, run syntheses and build what is due."""
    engine, producer = runtime.database(settings, MIGRATIONS), runtime.producer(settings)
    registry = runtime.channel(settings, "registry", settings.registry_address)
    store, outbox = S3Store.from_settings(settings), runtime.outbox(engine, tables.outbox, producer)
    erased = runtime.erased_documents(settings, LIFT_SECONDS)
    app = make_app(settings, engine, outbox, store, RegistryDocuments(registry), erased=erased)
    anonymization = runtime.channel(settings, "anonymization", settings.anonymization_address)
    app = replace(
        app, list_missed=RegistryScores(registry), check_residual=ResidualLimits(anonymization),
        measure_over_redaction=OverRedactionMeasure(anonymization, settings.max_over_redaction),
    )  # fmt: skip
    imports, import_files = SqlImports(engine), ImportFiles(store)
    import_eraser = ImportEraser(imports, import_files, erased)
    holdings = SqlHoldings(engine)
    consumers, eraser = Consumers(app), DatasetEraser(app, holdings, import_eraser.forget)
    browser = RowBrowser(SqlDatasetFinder(engine), store, app.erased)
    inference = runtime.channel(settings, "inference", settings.inference_address)
    drawer = PromptDrawer(
        app.specialists, browser, SqlDrawnPrompts(engine), RegistryQueue(registry), InferenceAnswers(inference)
    )
    servicer = SyntheticServicer(app, app.preparer, settings.near_duplicate_threshold, browser, drawer)
    importer = ImportServicer(ImportCommands(imports, import_files, RowAnonymizer(anonymization), erased))
    syntheses = build_syntheses(
        runtime, settings, engine, store, specialists=app.specialists, sides=app.repository.sides
    )
    servicers = (
        (add_SyntheticServiceServicer_to_server, servicer),
        (add_ImportServiceServicer_to_server, importer),
        syntheses.servicer,
    )
    runtime.rpc(settings, servicers)
    runtime.read_published(settings, SPECIALISTS, consumers.specialist)
    superseder = DatasetSuperseder(
        eraser, holdings, partial(confirm_forgotten, runtime.name, producer), settings.supersede_waits
    )
    forget = forgetting(runtime.name, eraser.forget, producer, supersede=superseder.remember)
    runtime.consume(settings, {**consumers.topics(), ERASED: forget}, producer)
    runtime.spawn("superseder", superseder.run)
    runtime.spawn("preparer", app.preparer.run)
    runtime.spawn("scheduler", lambda stop: _schedule(app, stop))
    syntheses.start(runtime)
    runtime.ready()


def make_app(
    settings: Settings,
    engine: Engine,
    outbox: Outbox,
    store: ObjectStore,
    list_documents: ListDocuments,
    *,
    erased: Container[str] = frozenset(),
) -> handlers.Synthetic:
    """The handlers over a migrated database and a store; nothing is started, so benches use it too."""
    sketcher = MinHashSketcher(settings.near_duplicate_threshold, passages)
    repository, tokenizers = SqlRepository(engine, outbox), StoredTokenizers(store)
    return handlers.Synthetic(
        repository=repository,
        origins=SqlOrigins(engine),
        corpora=SqlCorpora(engine),
        store=store,
        tokenizers=tokenizers,
        preparer=DocumentPreparer(SqlSketches(engine, similarity), sketcher, store),
        list_documents=list_documents,
        limits=settings.build_limits,
        pair_limits=settings.pair_limits,
        extra_rows=(
            SqlSynthesisRows(engine, tokenizers, repository.sides),
            ImportedRows(SqlImports(engine), ImportFiles(store), tokenizers, erased),
            EditedRows(repository, store, tokenizers, erased),
        ),
        erased=erased,
    )


def _schedule(app: handlers.Synthetic, stop: threading.Event) -> None:
    while not stop.wait(TICK_SECONDS):
        handlers.tick(app)
