"""The three parts under load: constant load, changing specialists, a killed replica."""

import os
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from bench.inference_house import ReplicaProcess
from bench.inference_load import PROMPTS, ServedSpecialists, load, percentile, serving, stream, whole
from tailor.client import TailorClient

PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class LoadSize:
    """Amount of load. Every `period_seconds` there is a promotion and a rollback, at least `rollouts` of each."""

    requests: int = 2000
    rollouts: int = 8
    period_seconds: float = 5.0
    kill_after: int = 300
    after_restart: int = 200


def measure_load(stage: ServedSpecialists, size: LoadSize) -> dict[str, Any]:
    """Measure constant load."""
    with serving(stage, threads=_cores()) as replicas, stage.client(*replicas) as client:
        outcome = load(client, stage, stream, lambda number: number < size.requests, lambda _: None)
    return {"load": {"base": stage.base.name, **outcome.figures(), **outcome.times()}}


def measure_rollouts(stage: ServedSpecialists, size: LoadSize) -> dict[str, Any]:
    """Measure load while one specialist after the other is promoted and rolled back."""
    with serving(stage, threads=_cores()) as replicas, stage.client(*replicas) as client:
        director = Director(client, stage, size)
        director.start()
        outcome = load(
            client, stage, stream, lambda number: number < size.requests or director.is_alive(), lambda _: None
        )
        director.join()
    took = director.seconds
    if len(took) < 2 * size.rollouts:
        raise SystemExit(
            f"only {len(took)} changes of {2 * size.rollouts} were served within {PATIENCE_SECONDS:g} s each"
        )
    changes = {
        "changes": len(took),
        "change_ms": {"p50": round(1000 * percentile(took, 0.5)), "max": round(1000 * max(took))},
    }
    return {"load_with_rollouts": {"base": stage.base.name, **outcome.figures(), **outcome.times(), **changes}}


class Director(threading.Thread):
    """Promotes a specialist, rolls it back half a period later, then continues with the next one. Records the time until each is served."""

    def __init__(self, client: TailorClient, stage: ServedSpecialists, size: LoadSize) -> None:
        super().__init__(name="director", daemon=True)
        self._client = client
        self._stage = stage
        self._size = size
        self.seconds: list[float] = []

    def run(self) -> None:
        """Run until the requested changes are served; ends early if one is not."""
        for number in range(2 * self._size.rollouts):
            began = time.monotonic()
            name = self._stage.names[number // 2 % len(self._stage.names)]
            generation = self._stage.change(name)
            if not self._is_served(name, generation, began + PATIENCE_SECONDS):
                return
            self.seconds.append(time.monotonic() - began)
            time.sleep(max(0.0, began + self._size.period_seconds / 2 - time.monotonic()))

    def _is_served(self, name: str, generation: int, deadline: float) -> bool:
        while time.monotonic() < deadline:
            if any(
                specialist.name == name and specialist.provenance.generation == generation
                for specialist in self._client.specialists()
            ):
                return True
            time.sleep(0.05)
        return False


@dataclass
class Killing:
    """Kills a replica (`kill -9`) after a number of answers, which `answered` counts, and restarts it."""

    victim: ReplicaProcess
    size: LoadSize
    answers_after: int = 0
    restart_seconds: float = 0.0
    left: list[int] = field(default_factory=list)
    _thread: threading.Thread | None = None
    _enough: int = 0

    def answered(self, count: int) -> None:
        self.answers_after += self._thread is not None
        if count == self.size.kill_after:
            self._thread = threading.Thread(target=self._kill, name="killing", daemon=True)
            self._thread.start()
        if self.restart_seconds and not self._enough:
            self._enough = count + self.size.after_restart

    def goes_on(self, number: int) -> bool:
        """True until enough calls were made after the restart."""
        if self._thread is not None and not self._thread.is_alive() and not self.restart_seconds:
            return False
        return not self._enough or number < self._enough

    def _kill(self) -> None:
        child = self.victim.child
        child.kill()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (left := child.group()) and time.monotonic() < deadline:
            time.sleep(0.1)
        self.left = left
        began = time.monotonic()
        child.begin()
        child.wait_ready()
        self.restart_seconds = time.monotonic() - began


def measure_kill(stage: ServedSpecialists, size: LoadSize) -> dict[str, Any]:
    """Measure load on two replicas with half of the cores each, one of which is killed and restarted."""
    with serving(stage, threads=max(1, _cores() // 2), replicas=2) as replicas, stage.client(*replicas) as client:
        killing = Killing(replicas[0], size)
        outcome = load(client, stage, whole, killing.goes_on, killing.answered)
        with stage.client(replicas[0]) as alone:
            again = [stage.is_right(name, whole(alone, name, PROMPTS[0])) for name in stage.names]
    return {
        "kill": {
            "base": stage.base.name,
            **outcome.figures(),
            "answers_after_the_kill": killing.answers_after,
            "longest_seconds": round(max(answer.seconds for answer in outcome.answers), 2),
            "processes_left": len(killing.left),
            "restart_seconds": round(killing.restart_seconds, 1),
            "right_after_restart": sum(again),
        }
    }


def _cores() -> int:
    return len(os.sched_getaffinity(0))
