"""Protocols with several implementations: launchers, and what writes answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from services.training.domain import Failure, Job


class Launcher(Protocol):
    """Starts and stops workers. A worker is named by run and epoch. Every method may raise Unavailable."""

    @property
    def ends_within(self) -> timedelta:
        """How long a worker may take to end after `stop`: time to save, then to be killed."""
        ...

    def start(self, job: Job) -> None:
        """Start a worker. Idempotent: a worker of the same name is not started twice."""
        ...

    def exit_code(self, run_id: str, epoch: int) -> int | None:
        """The worker's exit code; None while it runs, waits to be placed, or is unknown here."""
        ...

    def waits(self, run_id: str, epoch: int) -> Failure | None:
        """Why the worker has not been placed on a machine yet; None once it has."""
        ...

    def refusal(self, run_id: str, epoch: int) -> Failure | None:
        """Why every worker of this run would fail, such as a missing image; None if another may succeed."""
        ...

    def stop(self, run_id: str, epoch: int) -> None:
        """Ask the worker to end. Idempotent."""
        ...

    def stop_all(self) -> None:
        """Ask every worker to save and end, and block until they have. Called when the service stops."""
        ...


@dataclass(frozen=True)
class RolloutAnswer:
    """One answer, its end token included, with the log-probability that each of its tokens was drawn with."""

    tokens: Sequence[int]
    log_probabilities: Sequence[float]


class RolloutEngine(Protocol):
    """Writes the answers of a rollout step with other kernels than the training model's."""

    def write(self, prompts: Sequence[Sequence[int]], adapter: Path, seed: int) -> Sequence[RolloutAnswer]:
        """One sampled answer per prompt, by the adapter in a folder. Blocks. Depends on its arguments only.

        Raises Unavailable (ENGINE_FAILED).
        """
        ...

    @property
    def peak_bytes(self) -> int:
        """The largest memory until now, in addition to the caller's."""
        ...

    def close(self) -> None:
        """Free all memory. Idempotent."""
        ...
