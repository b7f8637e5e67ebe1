"""Values of training, and a launcher whose workers end when a test says so."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from services.training import wire
from services.training.domain import Base, Failure, Job, Progress, Run, RunKey, RunState, Stage, TrainedAdapter
from services.training.methods import row_files
from services.training.methods.rows import chat_encoder
from services.training.plans import Plan, Rates
from services.training.ports import Launcher
from services.training.recipe import load_recipe
from services.training.settings import Settings
from tailor.api.events.v1 import models_pb2
from tailor.chat import ChatTokenizer, Encoded
from tailor.errors import Reason, Unavailable
from tailor.storage.ref import Ref

START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
MANIFEST = Ref("s3://datasets/d1/manifest.json", "d1", 10)
PLAN = Plan(
    rows=6,
    tokens=400,
    steps=8,
    memory_bytes=1000,
    device_memory_bytes=4000,
    device="2 CPU cores",
    devices=2,
    seconds=20.0,
    seconds_from="estimated",
    fits=True,
    create_time=START,
)
RATES = Rates("EUR", device_hour=3.6, million_teacher_tokens=5.0, judgement=2.0)
BASE = Base("tiny", "b1", "apache-2.0", 1000, 2000, Ref("s3://models/bases/tiny/manifest.json", "b1", 10))


def read_encoded(paths: Sequence[Path], tokenizer: ChatTokenizer) -> list[Encoded]:
    """The encoded rows of Parquet files, in memory."""
    return list(chat_encoder(tokenizer).encode_all(row_files.read(paths, row_files.CHATS)))


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.moment = START

    def __call__(self) -> datetime:
        return self.moment

    def forward(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


class FakeLauncher(Launcher):
    """Workers whose end the test decides. `broken` makes every start fail."""

    def __init__(self) -> None:
        self.started: list[Job] = []
        self.stopped: list[tuple[str, int]] = []
        self.exits: dict[tuple[str, int], int] = {}
        self.waiting: Failure | None = None
        self.refused: Failure | None = None
        self.broken = False
        self.grace = timedelta(seconds=40)

    @property
    def ends_within(self) -> timedelta:
        return self.grace

    def start(self, job: Job) -> None:
        if self.broken:
            raise Unavailable(Reason.KUBERNETES_UNAVAILABLE, "The Kubernetes API is down.")
        self.started.append(job)

    def exit_code(self, run_id: str, epoch: int) -> int | None:
        return self.exits.get((run_id, epoch))

    def waits(self, run_id: str, epoch: int) -> Failure | None:
        return self.waiting

    def refusal(self, run_id: str, epoch: int) -> Failure | None:
        return self.refused

    def stop(self, run_id: str, epoch: int) -> None:
        self.stopped.append((run_id, epoch))

    def stop_all(self) -> None:
        self.stopped.append(("all", 0))


def change_job(settings: Settings, **fields: Any) -> Settings:
    """The settings with others of the Jobs."""
    return settings.model_copy(update={f"kubernetes_{name}": value for name, value in fields.items()})


def make_run(**changes: Any) -> Run:
    """A queued run of one stage on documents."""
    key = RunKey("reports", "d1", "tiny", "r1")
    stage = Stage("tiny", "sft", load_recipe("tiny").to_json(), "sft", MANIFEST)
    run = Run(f"run_{'7' * 32}", key, "tiny", (stage,), RunState.QUEUED, START, base_digest="b1", needs_plan=False)
    return replace(run, **changes)


def make_job() -> Job:
    """A run's first worker."""
    return Job(make_run(state=RunState.RUNNING, epoch=1, start_time=START, plan=PLAN), "b1")


def progress(step: int = 1, **changes: Any) -> Progress:
    """A worker's report; `changes` are fields of its message."""
    figures: dict[str, Any] = {
        "phase": "training",
        "step": step,
        "total_steps": 8,
        "loss": 3.0 - step / 10,
        "learning_rate": 1e-3,
        "gradient_norm": 0.5,
        "tokens_per_second": 200.0,
        "remaining_seconds": 10.0,
    }
    return wire.to_progress(models_pb2.RunProgressed(**figures | changes), epoch=1, now=START)


def trained(digest: str = "a1") -> TrainedAdapter:
    return TrainedAdapter(digest, Ref(f"s3://models/adapters/{digest}/manifest.json", digest, 5), steps=8)
