"""Chooses the real adapters of synthetic."""

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
    anonymize_row,
    answer_prompt,
    check_residual,
    count_waiting,
    list_documents,
    measure_over_redaction,
)
from services.synthetic.adapters.commented_drafts import SqlCommentedDrafts
from services.synthetic.adapters.corpus import SqlCorpora
from services.synthetic.adapters.datasets import SqlDatasets
from services.synthetic.adapters.drawn_prompts import SqlDrawnPrompts
from services.synthetic.adapters.erasures import SUPERSEDING, SqlHoldings
from services.synthetic.adapters.imports import SqlImports
from services.synthetic.adapters.seed_documents import SqlSeedDocuments
from services.synthetic.adapters.sketches import SqlSketches
from services.synthetic.adapters.sql import BUILD, PREPARATION, SqlRepository
from services.synthetic.adapters.syntheses import SqlSyntheses
from services.synthetic.adapters.synthesis_rows import SYNTHESIS, SqlSynthesisRows
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
from services.synthetic.synthesis.handlers import CRITIQUE_SECONDS, WAKING_REASONS, SynthesisCommands
from services.synthetic.synthesis.runner import RunLimits, SynthesisRunner
from services.synthetic.synthesis_rpc import SynthesisServicer
from tailor.api.anonymization.v1.anonymization_pb2_grpc import AnonymizationServiceStub
from tailor.api.anonymization.v1.replaced_pb2_grpc import ReplacedServiceStub
from tailor.api.anonymization.v1.review_pb2_grpc import ReviewServiceStub
from tailor.api.inference.v1.inference_pb2_grpc import InferenceServiceStub
from tailor.api.registry.v1.judging_pb2_grpc import JudgingServiceStub
from tailor.api.registry.v1.registry_pb2_grpc import RegistryServiceStub
from tailor.api.synthetic.v1.imports_pb2_grpc import add_ImportServiceServicer_to_server
from tailor.api.synthetic.v1.synthesis_pb2_grpc import add_SynthesisServiceServicer_to_server
from tailor.api.synthetic.v1.synthetic_pb2_grpc import add_SyntheticServiceServicer_to_server
from tailor.events.erased import ERASED, LIFT_SECONDS, confirm_forgotten, forgetting
from tailor.events.outbox import Outbox
from tailor.jobs import JobKind
from tailor.runtime import Runtime
from tailor.storage.protocol import ObjectStore
from tailor.storage.s3 import S3Store

MIGRATIONS = Path(__file__).parent / "adapters" / "migrations"
SCHEDULE_SECONDS = 1.0
# Syntheses that one replica runs at a time.
RUNNERS = 2


def build(runtime: Runtime, settings: Settings) -> None:
    """Connect, read the specialists, then serve, listen and run jobs."""
    engine, producer = runtime.database(settings, MIGRATIONS), runtime.producer(settings)
    registry = runtime.channel(settings, "registry", settings.registry_address)
    anonymization = runtime.channel(settings, "anonymization", settings.anonymization_address)
    catalogue, replaced = RegistryServiceStub(registry), ReplacedServiceStub(anonymization)
    store, outbox = S3Store.from_settings(settings), runtime.outbox(engine, tables.outbox, producer)
    erased = runtime.erased_documents(settings, LIFT_SECONDS)
    app = replace(
        make_app(settings, engine, outbox, store, partial(list_documents, catalogue), erased=erased),
        check_residual=partial(check_residual, ReviewServiceStub(anonymization)),
        measure_over_redaction=partial(measure_over_redaction, replaced, settings.max_over_redaction),
    )
    imports, import_files = SqlImports(engine), ImportFiles(store)
    barrier = partial(anonymize_row, AnonymizationServiceStub(anonymization))
    importer = ImportCommands(imports, import_files, barrier, erased)
    holdings, datasets = SqlHoldings(engine), SqlDatasets(engine)
    consumers, eraser = Consumers(app), DatasetEraser(app, holdings, datasets, importer.forget_row)
    browser = RowBrowser(datasets, store, app.erased)
    inference = runtime.channel(settings, "inference", settings.inference_address)
    waiting = partial(count_waiting, JudgingServiceStub(registry))
    answer = partial(answer_prompt, InferenceServiceStub(inference))
    drawer = PromptDrawer(app.specialists, browser, SqlDrawnPrompts(engine), waiting, answer)
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
    confirm = partial(confirm_forgotten, runtime.name, producer)
    superseder = DatasetSuperseder(eraser, confirm, settings.supersede_waits)
    forget = forgetting(runtime.name, eraser.forget, producer, supersede=superseder.remember)
    runtime.consume(settings, {**consumers.topics(), ERASED: forget}, producer)
    kinds = [JobKind(SUPERSEDING, superseder.run), *make_build_jobs(app)]
    if teacher is not None:
        # A new process may have a new key, so what waits for one resumes at once.
        runtime.wait_for("syntheses to wake", lambda: syntheses.syntheses.wake(WAKING_REASONS))
        kinds += make_synthesis_jobs(syntheses, teacher, app, settings.run_limits)
    runtime.jobs(engine, tables.jobs, kinds)
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


def make_build_jobs(app: handlers.Synthetic) -> list[JobKind]:
    """The jobs that prepare documents, look for what is due, and build it."""
    return [
        JobKind(PREPARATION, app.preparer.run),
        JobKind("schedule", partial(handlers.schedule, app), every=SCHEDULE_SECONDS),
        JobKind(BUILD, partial(handlers.run_builds, app)),
    ]


def make_synthesis_jobs(
    commands: SynthesisCommands, teacher: OpenAiModel, app: handlers.Synthetic, limits: RunLimits
) -> list[JobKind]:
    """The jobs that start critiques and run syntheses."""
    runner = SynthesisRunner(
        commands.syntheses, teacher, commands.judge, commands.documents, commands.comments, app.specialists.get, app.tokenizers, limits
    )  # fmt: skip
    start = partial(commands.run_critiques, app.specialists)
    return [JobKind(SYNTHESIS, runner.run, limit=RUNNERS), JobKind("critiques", start, every=CRITIQUE_SECONDS)]
