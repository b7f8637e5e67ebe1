"""The service's overhead over the bare trainer: events, reports, checkpoints and their uploads.

The bare side is the same method's trainer in its own process, without checkpoints, reports or a compute lock. The other side is a run of the training
service. Both train the same steps of the recipe on the same rows, to the same losses, alternating every few seconds: while one process runs, the other
is suspended. The service, the broker, the object store and the database always run; what they use while idle is reported separately. A round gives a
ratio; the result is the mean of the rounds with its standard error.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.alternating import Contender, Look, alternate
from bench.children import cpu_seconds
from bench.training_house import ROOT, House, recipe
from bench.training_stack import Followed, Service, training_service
from services.training.recipe import Recipe

STEPS = 60
# The first steps pass before the bench can observe them.
FIRST = 4
ROUNDS = 6
TURN_SECONDS = 5.0
BEGIN_SECONDS = 120.0
IDLE_SECONDS = 30.0


def measure(house: House) -> dict[str, Any]:
    """Mean ratio of the rounds minus 1 with its standard error, by wall time and by CPU, and each side's mean seconds."""
    with (
        tempfile.TemporaryDirectory(prefix="tailor-bench-", ignore_cleanup_errors=True) as folder,
        training_service(house, Path(folder).resolve()) as service,
    ):
        idle = _cores_taken(service)
        rounds = [_round(house, service, number) for number in range(ROUNDS)]
    overhead, error = _mean_ratio([(pair.served.clock, pair.bare.clock) for pair in rounds])
    cpu_overhead, cpu_error = _mean_ratio([(pair.served.cpu_seconds, pair.bare.cpu_seconds) for pair in rounds])
    return {
        "bare_seconds": round(float(np.mean([pair.bare.clock for pair in rounds])), 2),
        "service_seconds": round(float(np.mean([pair.served.clock for pair in rounds])), 2),
        "service_overhead": round(overhead, 4),
        "service_overhead_error": round(error, 4),
        "service_cpu_overhead": round(cpu_overhead, 4),
        "service_cpu_overhead_error": round(cpu_error, 4),
        "service_overhead_rounds": [round(pair.served.clock / pair.bare.clock - 1, 4) for pair in rounds],
        "idle_stack_cores": round(idle, 4),
        "steps": STEPS - FIRST,
        "checkpoints": (STEPS - 1) // _recipe(0).checkpoint_every_steps,
    }


@dataclass(frozen=True)
class Round:
    """The same steps on each side."""

    bare: Look
    served: Look


def _round(house: House, service: Service, number: int) -> Round:
    chosen = _recipe(number)
    with _Bare(house, chosen) as bare:
        _await_step(bare)
        alone = Contender(
            bare.processes, lambda: bare.processes() + _idle(service), lambda: STEPS in bare.clocks or not bare.alive
        )
        try:
            alone.hold()
            run = service.begin(f"bench-{number}", chosen)
            _await_step(run)
            through = Contender(service.workers, service.processes, lambda: STEPS in run.clocks or not run.alive)
            try:
                through.hold()
                alternate(alone, through, TURN_SECONDS)
            finally:
                through.release()
        finally:
            alone.release()
    run.wait()
    if STEPS not in bare.clocks:
        raise SystemExit("the bare trainer ended before its last step")
    if bare.losses != run.losses:
        raise SystemExit("the two sides' losses differ: they did not train the same")
    return Round(_ran(alone, bare.clocks), _ran(through, run.clocks))


def _cores_taken(service: Service) -> float:
    """CPU seconds per second that the idle stack takes."""
    before = sum(map(cpu_seconds, service.processes()))
    time.sleep(IDLE_SECONDS)
    return (sum(map(cpu_seconds, service.processes())) - before) / IDLE_SECONDS


def _idle(service: Service) -> list[int]:
    """The stack without a run's worker."""
    return sorted(set(service.processes()) - set(service.workers()))


def _await_step(side: "_Bare | Followed") -> None:
    deadline = time.monotonic() + BEGIN_SECONDS
    while not side.clocks:
        if not side.alive or time.monotonic() > deadline:
            raise SystemExit(f"no step within {BEGIN_SECONDS:g} s, or none before it ended")
        time.sleep(0.02)


def _ran(side: Contender, clocks: Mapping[int, float]) -> Look:
    if clocks[FIRST] < side.windows[0][0].clock:
        raise SystemExit(f"step {FIRST} had passed before it was looked at")
    return side.ran(clocks[FIRST], clocks[STEPS])


def _mean_ratio(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    """The geometric mean of the ratios minus 1, and its standard error."""
    logs = np.log([above / below for above, below in pairs])
    mean = float(np.exp(logs.mean()))
    return mean - 1, mean * float(logs.std(ddof=1)) / len(logs) ** 0.5


def _recipe(number: int) -> Recipe:
    """The demo's recipe with a fixed number of steps; a different limit that is never reached makes each round a separate run."""
    return recipe("lora", limit={"epochs": 10.0 + number, "max_steps": STEPS, "max_tokens": 0})


class _Bare:
    """The bare trainer, in a process that lives until the context ends. A thread reads its output."""

    def __init__(self, house: House, chosen: Recipe) -> None:
        self.clocks: dict[int, float] = {}
        self.losses: dict[int, float] = {}
        body = {
            "base": str(house.base_folder),
            "train": [str(path) for path in house.train],
            "recipe": chosen.to_json(),
        }
        command = [sys.executable, "-m", "bench.training_bare"]
        self._child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
        )
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(body) + "\n")
        self._child.stdin.flush()
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> "_Bare":
        return self

    def __exit__(self, *_: object) -> None:
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._child.wait()

    @property
    def alive(self) -> bool:
        """True while it runs."""
        return self._child.poll() is None

    def processes(self) -> list[int]:
        """Its process id."""
        return [self._child.pid]

    def _read(self) -> None:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            if line.startswith("{"):
                said, step = json.loads(line), len(self.clocks) + 1
                self.losses[step] = said["loss"]
                self.clocks[step] = said["clock"]
