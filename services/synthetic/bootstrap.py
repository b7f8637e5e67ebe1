"""Chooses the real adapters of synthetic."""

import threading
from collections.abc import Container
from dataclasses import replace
from functools import partial
from pathlib import Path

from pydantic import SecretStr
from sqlalchemy import Engine

from services.synthetic import handlers
from services.synthetic.adapters import tables
from services.synthetic.adapters.admitted_origins import SqlOrigins
from services.synthetic.adapters.clients import (
    InferenceAnswers,
    OverRedactionMeasure,
    RegistryDocuments,
    RegistryQueue,
    RegistryScores,
    ResidualLimits,
    RowAnonymizer,
)
from services.synthetic.adapters.commented_drafts import SqlCommentedDrafts
from services.synthetic.adapters.corpus import SqlCorpora
from services.synthetic.adapters.datasets import SqlDatasets
from services.synthetic.adapters.drawn_prompts import SqlDrawnPrompts
from services.synthetic.adapters.erasures import SqlHoldings
from services.synthetic.adapters.imports import SqlImports
from services.synthetic.adapters.seed_documents import SqlSeedDocuments
from services.synthetic.adapters.sketches import SqlSketches
from services.synthetic.adapters.sql import SqlRepository
from services.synthetic.adapters.syntheses import SqlSyntheses
from services.synthetic.adapters.synthesis_rows import SqlSynthesisRows
from services.synthetic.adapters.teacher import OpenAiModel
from services.synthetic.adapters.tokenizers import StoredTokenizers
from services.synthetic.browsing import RowBrowser
from services.synthetic.consumers import SPECIALISTS, Consumers
from services.synthetic.edited_rows import EditedRows
from services.synthetic.erasures import DatasetEraser, DatasetSuperseder
from services.synthetic.import_rpc import ImportServicer
from services.synthetic.imports.files import ImportFiles
from services.synthetic.imports.handlers import ImportCommands
from services.synthetic.imports.rows import ImportedRows
from services.synthetic.near_duplicates.minhash import MinHashSketcher
from services.synthetic.near_duplicates.preparer import DocumentPreparer
from services.synthetic.ports import ListDocuments
from services.synthetic.prompt_drawer import PromptDrawer
from services.synthetic.rows.passages import passages
from services.synthetic.rpc import SyntheticServicer
from services.synthetic.settings import Settings
from services.synthetic.synthesis.handlers import WAKING_REASONS, SynthesisCommands
from services.synthetic.synthesis.runner import SynthesisRunner
from services.synthetic.synthesis_rpc import SynthesisServicer
from tailor.api.synthetic.v1.imports_pb2_grpc import add_ImportServiceServicer_to_server
from tailor.api.synthetic.v1.synthesis_pb2_grpc import add_SynthesisServiceServicer_to_server
from tailor.api.synthetic.v1.synthetic_pb2_grpc import add_SyntheticServiceServicer_to_server
from tailor.events.erased import ERASED, LIFT_SECONDS, confirm_forgotten, forgetting
from tailor.events.outbox import Outbox
from tailor.runtime import Runtime
from tailor.storage.protocol import ObjectStore
from tailor.storage.s3 import S3Store

MIGRATIONS = Path(__file__).parent / "adapters" / "migrations"
TICK_SECONDS = 1.0
# Syntheses that one replica runs at a time.
RUNNERS = 2


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
    imports, import_files, barrier = SqlImports(engine), ImportFiles(store), RowAnonymizer(anonymization)
    importer = ImportCommands(imports, import_files, barrier, erased)
    holdings, datasets = SqlHoldings(engine), SqlDatasets(engine)
    consumers, eraser = Consumers(app), DatasetEraser(app, holdings, datasets, importer.forget_row)
    browser = RowBrowser(datasets, store, app.erased)
    inference = runtime.channel(settings, "inference", settings.inference_address)
    drawer = PromptDrawer(
        app.specialists, browser, SqlDrawnPrompts(engine), RegistryQueue(registry), InferenceAnswers(inference)
    )
    servicer = SyntheticServicer(app, browser, drawer)
    teacher, judge = open_models(settings)
    seeds, comments = SqlSeedDocuments(engine, store), SqlCommentedDrafts(engine, store)
    syntheses = SynthesisCommands(SqlSyntheses(engine), seeds, barrier, teacher, judge, settings.prices, comments)
    servicers = (
        (add_SyntheticServiceServicer_to_server, servicer),
        (add_ImportServiceServicer_to_server, ImportServicer(importer)),
        (add_SynthesisServiceServicer_to_server, SynthesisServicer(syntheses, app.specialists)),
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
    if teacher is not None:
        _run_syntheses(runtime, settings, syntheses, teacher, app)
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
        preparer=DocumentPreparer(SqlSketches(engine), sketcher, store),
        list_documents=list_documents,
        limits=settings.build_limits,
        pair_limits=settings.pair_limits,
        extra_rows=(
            SqlSynthesisRows(engine, tokenizers),
            ImportedRows(SqlImports(engine), ImportFiles(store), tokenizers, erased),
            EditedRows(repository, store, tokenizers, erased),
        ),
        erased=erased,
    )


def open_models(settings: Settings) -> tuple[OpenAiModel | None, OpenAiModel | None]:
    """Teacher and judge; None for one that is not configured."""

    def open_model(url: str, key: SecretStr, model: str) -> OpenAiModel | None:
        seconds, proxy, authority = settings.teacher_timeout_seconds, settings.teacher_proxy, settings.tls_ca_file
        secret = key.get_secret_value()
        return OpenAiModel(url, secret, model, timeout_seconds=seconds, proxy=proxy, ca_file=authority) if url else None

    return (
        open_model(settings.teacher_base_url, settings.teacher_api_key, settings.teacher_model),
        open_model(settings.judge_base_url, settings.judge_api_key, settings.judge_model),
    )


def _run_syntheses(
    runtime: Runtime, settings: Settings, commands: SynthesisCommands, teacher: OpenAiModel, app: handlers.Synthetic
) -> None:
    """Run what waits, in threads. A new process may have a new key, so what waits for one resumes at once."""
    specialists, limits = app.specialists, settings.run_limits
    runner = SynthesisRunner(
        commands.syntheses, teacher, commands.judge, commands.documents, commands.comments, specialists.get, app.tokenizers, limits
    )  # fmt: skip
    runtime.wait_for("syntheses to wake", lambda: commands.syntheses.wake(WAKING_REASONS))
    for number in range(RUNNERS):
        runtime.spawn(f"syntheses-{number}", runner.run)
    runtime.spawn("critiques", lambda stop: commands.run_critiques(specialists, stop))


def _schedule(app: handlers.Synthetic, stop: threading.Event) -> None:
    while not stop.wait(TICK_SECONDS):
        handlers.tick(app)
