"""Builds the service: the one place that chooses its real adapters and connects them to handlers, topics, gRPC and jobs."""

from functools import partial
from pathlib import Path

from services.evaluation.adapters import tables
from services.evaluation.adapters.chat_endpoint import external_endpoints
from services.evaluation.adapters.inference import RemoteModels
from services.evaluation.adapters.judge import open_judge
from services.evaluation.adapters.metric_services import open_metric_services
from services.evaluation.adapters.probes import StoredProbes
from services.evaluation.adapters.rows import StoredHeldOutRows, open_train_rows
from services.evaluation.adapters.sql import (
    EVALUATION,
    SqlArtifacts,
    SqlDefinitions,
    SqlEvaluations,
    SqlModelResults,
)
from services.evaluation.baseline_models import BaselineModels, PromptSearch
from services.evaluation.baselines.prompt_store import PromptStore
from services.evaluation.consumers import Consumers
from services.evaluation.domain import Agreement, RetryLimits, Specialists
from services.evaluation.handlers import forget
from services.evaluation.judging import JudgeBench
from services.evaluation.report import ReportStore
from services.evaluation.rpc import EvaluationServicer
from services.evaluation.settings import Settings
from services.evaluation.suites.runner import SuiteRunner
from services.evaluation.worker import EvaluationWorker
from tailor.api.evaluation.v1.evaluation_pb2_grpc import add_EvaluationServiceServicer_to_server
from tailor.events.erased import ERASED, forgetting
from tailor.jobs import JobKind
from tailor.rows import Rows
from tailor.runtime import Runtime
from tailor.storage.s3 import S3Store

MIGRATIONS = Path(__file__).parent / "adapters" / "migrations"


def build(runtime: Runtime, settings: Settings) -> None:
    """Connect, read what serves, then serve, consume and evaluate."""
    engine = runtime.database(settings, MIGRATIONS)
    producer = runtime.producer(settings)
    outbox = runtime.outbox(engine, tables.outbox, producer)
    store = S3Store.from_settings(settings)
    models = RemoteModels(runtime.channel(settings, "inference", settings.inference_address))
    results, artifacts, rows = SqlModelResults(engine), SqlArtifacts(engine), StoredHeldOutRows(store)
    erased = runtime.erased_documents(settings)
    judging = JudgeBench(
        artifacts,
        rows,
        Rows(engine, tables.agreements, Agreement),
        open_judge(settings),
        erased,
        settings.judge_parallel,
    )
    anonymization = runtime.channel(settings, "anonymization", settings.anonymization_address)
    probes = StoredProbes(store, anonymization, settings.read_planted_secrets())
    prompts = PromptStore(store)
    source = BaselineModels(
        models=models,
        artifacts=artifacts,
        open_rows=partial(open_train_rows, store),
        search=PromptSearch(prompts, settings.prompt_budget, settings.reflection_model),
        external=external_endpoints(settings),
        limits=settings.external_limits,
        erased=erased,
    )
    worker = EvaluationWorker(
        artifacts=artifacts,
        evaluations=SqlEvaluations(engine, outbox),
        results=results,
        models=models,
        list_models=source.list_models,
        prices=settings.prices,
        rows=rows,
        reports=ReportStore(store),
        specialists=Specialists(),
        judging=judging,
        definitions=SqlDefinitions(engine),
        services=open_metric_services(settings),
        concurrency=settings.concurrency,
        limits=RetryLimits(settings.give_up_seconds, settings.max_starts),
        erased=erased,
        suites=SuiteRunner(probes, results, settings.concurrency),
    )
    evaluations, reports = worker.evaluations, worker.reports
    servicer = EvaluationServicer(artifacts, evaluations, reports)
    runtime.rpc(settings, [(add_EvaluationServiceServicer_to_server, servicer)])
    consumers = Consumers(artifacts, evaluations, worker.specialists)
    for topic, apply in consumers.tables().items():
        runtime.read_published(settings, topic, apply)
    forget_reports = partial(forget, evaluations, results, reports, prompts)
    erase = forgetting(runtime.name, forget_reports, producer, supersede=forget_reports)
    runtime.consume(settings, {**consumers.topics(), ERASED: erase}, producer)
    runtime.jobs(engine, tables.jobs, [JobKind(EVALUATION, worker.run)])
    runtime.ready()
