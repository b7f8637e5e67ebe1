"""The one place that chooses training's real adapters."""

import os
import threading
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Engine

from services.training import handlers
from services.training.adapters import tables
from services.training.adapters.datasets import StoredAdapters, StoredDatasets
from services.training.adapters.mlflow_mirror import MlflowMirror
from services.training.adapters.sql import SqlRuns
from services.training.bases.store import StoredBases
from services.training.consumers import Consumers
from services.training.domain import Launcher
from services.training.erasures import Eraser
from services.training.handlers import Context
from services.training.launchers.kubernetes_job import JobOptions, Resources
from services.training.launchers.subprocess import SubprocessLauncher, worker_command
from services.training.planning.devices import Device
from services.training.planning.planner import StoredPlanner
from services.training.plans import Rates
from services.training.ports import Bases
from services.training.preparation import Preparer
from services.training.queue import Limits
from services.training.rpc import TrainingServicer
from services.training.settings import Settings, decode_labels
from services.training.supervisor import Supervisor
from tailor.api.training.v1.training_pb2_grpc import add_TrainingServiceServicer_to_server
from tailor.errors import TailorError
from tailor.events.consumer import Consumer
from tailor.events.erased import ERASED, forgetting
from tailor.events.outbox import Outbox
from tailor.events.producer import KafkaProducer
from tailor.logging import get_logger
from tailor.rpc.keys import authenticator
from tailor.rpc.server import RpcServer
from tailor.runtime import Runtime
from tailor.sql import connect, migrate
from tailor.storage.s3 import S3Store

log = get_logger(__name__)

NAME = "training"
MIGRATIONS = Path(__file__).parent / "adapters" / "migrations"
RETRY_SECONDS = 5.0
# What the service knows and a worker need not. By TAILOR_COMPONENT the embedded stack finds, and ends, what a killed service left behind:
# workers live on.
WITHHELD = (
    "TAILOR_COMPONENT",
    "TAILOR_DATABASE_",
    "TAILOR_KAFKA_",
    "TAILOR_WORKER_",
    "TAILOR_S3_",
    "TAILOR_IDENTITY_",
    "TAILOR_RPC_",
    "TAILOR_STATUS_",
    "HF_TOKEN",
)


def build(runtime: Runtime, settings: Settings) -> None:
    """Connect, then serve, listen and supervise."""
    engine = _database(runtime, settings)
    producer = runtime.wait_for("kafka", lambda: KafkaProducer.from_settings(settings, NAME))
    runtime.on_stop(producer.close)
    store = S3Store.from_settings(settings)
    outbox = Outbox(engine, tables.outbox, producer)
    runs = SqlRuns(engine, outbox)
    bases = StoredBases(store, settings.data_dir / "bases", settings.base_max_gib * 2**30)
    planner = StoredPlanner(store, runs, settings.recipes_dir, _device(settings), settings.data_dir / "plans", _now)
    context = Context(
        runs,
        bases,
        StoredDatasets(store),
        StoredAdapters(store),
        planner,
        settings.recipes_dir,
        rates(settings),
        _now,
    )
    runtime.wait_for("object store", bases.list)
    launcher = _launcher(runtime, settings)
    servicers = [(add_TrainingServiceServicer_to_server, TrainingServicer(context))]
    runtime.serve(RpcServer(settings, NAME, servicers=servicers, authenticator=authenticator(settings, NAME)))
    runtime.spawn("outbox", outbox.run)
    eraser = Eraser(runs, launcher, store, settings.data_dir / "work", _now)
    topics = {
        **Consumers(context, runtime.erased_documents(settings)).topics(),
        ERASED: forgetting(NAME, eraser.forget, producer),
    }
    consumer = Consumer(settings, service=NAME, topics=topics, producer=producer)
    runtime.spawn("consumer", consumer.run)
    runtime.spawn("preparer", Preparer(context).run)
    supervisor = Supervisor(runs, launcher, limits(settings), _now)
    supervisor.adopt()
    runtime.spawn("supervisor", supervisor.run)
    if settings.mlflow_tracking_uri:
        runtime.spawn("mlflow", MlflowMirror(runs, settings.mlflow_tracking_uri).run)
    if settings.default_base and settings.default_base_source:
        name, source = settings.default_base, settings.default_base_source
        runtime.spawn("default base", lambda stop: _add_default_base(context, bases, name, source, stop))
    runtime.ready()


def _now() -> datetime:
    return datetime.now(UTC)


def limits(settings: Settings) -> Limits:
    """How many runs have a worker at once; where Kueue admits them, ours only limits per specialist."""
    admitted_elsewhere = settings.launcher == "kubernetes" and bool(settings.kubernetes_queue)
    return Limits(None if admitted_elsewhere else settings.max_runs, settings.max_runs_per_specialist)


def _device(settings: Settings) -> Device:
    """What the settings say of the device that workers train on."""
    here = settings.launcher == "subprocess"
    count = settings.devices or (1 if here else settings.kubernetes_nodes * max(1, settings.kubernetes_gpus))
    gpu = not here and settings.kubernetes_gpus > 0
    name = settings.device_name or ("" if here else f"{count} x {'GPU' if gpu else 'CPU node'}")
    memory_bytes = round(settings.device_memory_gib * 2**30)
    return Device(name, count, memory_bytes, settings.device_teraflops, gpu=gpu, here=here)


def rates(settings: Settings) -> Rates:
    """What things cost here."""
    return Rates(
        settings.price_currency,
        settings.price_per_device_hour,
        settings.price_per_million_teacher_tokens,
        settings.price_per_judgement,
    )


def _database(runtime: Runtime, settings: Settings) -> Engine:
    engine = connect(settings.database_url.get_secret_value())
    runtime.wait_for("database", lambda: migrate(engine, MIGRATIONS))
    runtime.on_stop(engine.dispose)
    return engine


def _add_default_base(context: Context, bases: Bases, name: str, source: str, stop: threading.Event) -> None:
    """Add the installation's base when it is missing; runs wait for it meanwhile."""
    while not stop.is_set():
        try:
            if bases.find(name) is None:
                for step in handlers.add_base(context, name, source):
                    log.info("adding the default base", base=name, step=step if isinstance(step, str) else "added")
        except TailorError as error:
            log.warning("the default base waits", base=name, reason=error.reason)
            if not error.retryable:
                return
            stop.wait(RETRY_SECONDS)
        else:
            return


def _launcher(runtime: Runtime, settings: Settings) -> Launcher:
    if settings.launcher == "subprocess":
        environment = worker_environment(settings, os.environ)
        launcher = SubprocessLauncher(settings.data_dir / "workers", environment, worker_command(settings.processes))
        runtime.on_stop(launcher.stop_all)
        return launcher
    return _kubernetes(runtime, settings)


def worker_environment(settings: Settings, inherited: "os._Environ[str] | dict[str, str]") -> dict[str, str]:
    """All that a worker on this machine gets: its own credentials, and none of the service's."""
    environment = {name: value for name, value in inherited.items() if not name.startswith(WITHHELD)}
    return environment | {
        "TAILOR_S3_ENDPOINT": settings.s3_endpoint,
        "TAILOR_S3_SECURE": str(settings.s3_secure).lower(),
        "TAILOR_S3_REGION": settings.s3_region,
        "TAILOR_S3_ACCESS_KEY": settings.worker_s3_access_key,
        "TAILOR_S3_SECRET_KEY": settings.worker_s3_secret_key.get_secret_value(),
        "TAILOR_IDENTITY_KEY_FILE": str(settings.worker_identity_key_file),
        "TAILOR_TRUST_FILE": str(settings.trust_file),
        "TAILOR_TRAINING_ADDRESS": settings.training_address,
        "TAILOR_DATA_DIR": str(settings.data_dir / "work"),
        "TAILOR_PARALLELISM": settings.parallelism,
    }


def _kubernetes(runtime: Runtime, settings: Settings) -> Launcher:
    from kubernetes import client, config

    from services.training.launchers.kubernetes import KubernetesLauncher

    config.load_incluster_config()
    launcher = KubernetesLauncher(client.BatchV1Api(), client.CoreV1Api(), job_options(settings))
    runtime.spawn("jobs", launcher.watch)
    return launcher


def job_options(settings: Settings) -> JobOptions:
    """Where Jobs run and with what, by the settings."""
    environment = {
        "TAILOR_S3_ENDPOINT": settings.s3_endpoint,
        "TAILOR_S3_SECURE": str(settings.s3_secure).lower(),
        "TAILOR_S3_REGION": settings.s3_region,
        "TAILOR_TRAINING_ADDRESS": settings.training_address,
        "TAILOR_LOG_LEVEL": settings.log_level,
        "TAILOR_PARALLELISM": settings.parallelism,
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    resources = Resources(
        gpus=settings.kubernetes_gpus,
        cpu=settings.kubernetes_cpu,
        cpu_limit=settings.kubernetes_cpu_limit,
        memory=settings.kubernetes_memory,
        memory_limit=settings.kubernetes_memory_limit,
        shared_memory=settings.kubernetes_shared_memory,
        scratch=settings.kubernetes_scratch,
    )
    return JobOptions(
        namespace=settings.kubernetes_namespace,
        image=settings.kubernetes_image,
        secret=settings.kubernetes_worker_secret,
        environment=environment,
        resources=resources,
        nodes=settings.kubernetes_nodes,
        queue=settings.kubernetes_queue,
        node_labels=decode_labels(settings.kubernetes_node_labels),
        priority_class=settings.kubernetes_priority_class,
        pull_secret=settings.kubernetes_pull_secret,
        deadline_seconds=settings.kubernetes_deadline_seconds,
    )
