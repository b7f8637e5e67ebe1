"""Builds the service: the one place that chooses its real adapters and connects them to handlers, topics, gRPC and jobs."""

from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from services.training import handlers
from services.training.adapters import tables
from services.training.adapters.ledger import RegistryLedger
from services.training.adapters.mlflow_mirror import MlflowEvaluations, MlflowMirror
from services.training.adapters.sql import SqlRuns
from services.training.bases.store import StoredBases
from services.training.consumers import SPECIALISTS, Consumers
from services.training.erasures import Eraser
from services.training.exports import Exporter
from services.training.handlers import TrainingPorts
from services.training.launchers.subprocess import SubprocessLauncher
from services.training.planning.devices import Device
from services.training.planning.planner import StoredPlanner
from services.training.ports import Launcher
from services.training.rpc import TrainingServicer
from services.training.settings import Settings
from services.training.supervisor import (
    WATCH_INTERVAL,
    BudgetWatch,
    Supervisor,
    prepare_runs,
    show_waiting_runs,
)
from services.training.worker.reload_check import reload_in_fresh_process
from tailor.api.training.v1.training_pb2_grpc import add_TrainingServiceServicer_to_server
from tailor.events.erased import ERASED, forgetting
from tailor.jobs import TICK_SECONDS, JobKind, add_job
from tailor.runtime import Runtime
from tailor.sql import transaction
from tailor.storage.s3 import S3Store

# Runs among which the planner searches similar ones.
SEARCHED_RUNS = 200
DEFAULT_BASE = "default base"
MIGRATIONS = Path(__file__).parent / "adapters" / "migrations"


def build(runtime: Runtime, settings: Settings) -> None:
    """Connect, then serve, consume and supervise."""
    engine = runtime.database(settings, MIGRATIONS)
    producer = runtime.producer(settings)
    store = S3Store.from_settings(settings)
    runs = SqlRuns(engine, runtime.outbox(engine, tables.outbox, producer))
    bases = StoredBases(store, settings.data_dir / "bases", settings.base_max_gib * 2**30)
    reload = partial(reload_in_fresh_process, compute_lock=settings.compute_lock)
    rates = settings.rates()
    ledger = RegistryLedger(runtime.channel(settings, "registry", settings.registry_address), rates.currency)
    planner = StoredPlanner(
        store,
        partial(runs.page, size=SEARCHED_RUNS),
        settings.recipes_dir,
        Device.from_settings(settings),
        settings.data_dir / "plans",
        _now,
        settings.rollout_engine,
        settings.max_lora_rank,
    )
    ports = TrainingPorts(
        runs,
        bases,
        store,
        planner.plan,
        ledger.this_month,
        settings.recipes_dir,
        rates,
        _now,
        Exporter(store, bases, settings.data_dir / "exports", reload),
        hour_limits=settings.hour_limits(),
        default_base=settings.default_base,
    )
    runtime.wait_for("object store", bases.list)
    launcher = _start_launcher(runtime, settings)
    runtime.rpc(settings, [(add_TrainingServiceServicer_to_server, TrainingServicer(ports))])
    eraser = Eraser(runs, launcher, store, settings.data_dir / "work", _now)
    uri = settings.mlflow_tracking_uri
    record = MlflowEvaluations(uri, settings.console_url).record if uri else None
    consumers = Consumers(ports, runtime.erased_documents(settings), record)
    runtime.read_published(settings, SPECIALISTS, consumers.on_specialist)
    runtime.consume(
        settings,
        {**consumers.topics(), ERASED: forgetting(runtime.name, eraser.forget, producer, supersede=eraser.forget)},
        producer,
    )
    supervisor = Supervisor(runs, launcher, settings.limits(), _now)
    supervisor.adopt()
    budget_watch = BudgetWatch(ports, launcher.ends_within)
    kinds = [
        JobKind("preparation", lambda _: prepare_runs(ports), every=1.0),
        JobKind("supervision", lambda _: supervisor.tick(), every=1.0),
        JobKind("budgets", lambda _: budget_watch.tick(), every=WATCH_INTERVAL.total_seconds() - TICK_SECONDS),
    ]
    if uri:
        mirror = MlflowMirror(runs, uri)
        kinds.append(JobKind("mlflow", lambda _: mirror.mirror(), every=5.0))
    if settings.default_base and settings.default_base_source:
        name, source = settings.default_base, settings.default_base_source
        kinds.append(JobKind(DEFAULT_BASE, lambda _: handlers.add_default_base(bases, name, source)))
        with transaction(engine) as connection:
            add_job(connection, tables.jobs, DEFAULT_BASE)
    runtime.jobs(engine, tables.jobs, kinds)
    runtime.every("run approval", 5.0, partial(show_waiting_runs, runs, runtime.faults))
    runtime.ready()


def _start_launcher(runtime: Runtime, settings: Settings) -> Launcher:
    """The launcher, connected; the runtime stops it or its threads."""
    if settings.launcher == "subprocess":
        launcher = SubprocessLauncher.from_settings(settings)
        runtime.on_stop(launcher.stop_all)
        return launcher
    from services.training.launchers.kubernetes import KubernetesLauncher

    cluster = KubernetesLauncher.from_settings(settings)
    runtime.spawn("cluster", cluster.watch)
    return cluster


def _now() -> datetime:
    return datetime.now(UTC)
