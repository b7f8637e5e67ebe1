"""`make bench-callers-wait`: how long callers wait while a run trains on the same machine, and what training keeps of its pace.

An embedded stack trains the recipe `lora` of the demo. Callers ask for answers of 16 tokens, one every two seconds on average (Poisson, a fixed seed),
for ten minutes of the run and during the reload checks of short runs. Then one caller has an endless stream written, and then two other programs
compute without a pause. Every pace is compared with that of the same run by itself, just before and after. Half an hour on two cores.

`python -m bench.callers_wait --seconds 60` is a try of five minutes, with shorter steps, which keeps no figures.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.callers_load import Callers, TimedCall, busy_programs, endless_stream, measure_share
from bench.report import keep
from bench.training_house import House, build, recipe
from bench.training_stack import Service, training_service
from tailor.api.inference.v1 import inference_pb2_grpc

NAME = "callers_wait"
SEED = 39
SECONDS = 600.0
RELOAD_CHECKS = 4
STEP_SECONDS = 600.0
# The first steps are slower.
FIRST_STEP = 2
# Steps that end in a window, at least.
MIN_STEPS = 4
TRY_TOKENS = 128
BOUNDS: Mapping[str, Callable[[float], bool]] = {
    "first_token_p95_s": lambda figure: figure < 2,
    "training_kept": lambda figure: figure >= 0.6,
    "training_kept_beside_stream": lambda figure: figure >= 0.2,
    "pace_per_share": lambda figure: figure >= 0.7,
}


def main() -> int:
    """Measure, print and keep the figures. Returns 1 if a bound is broken."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=SECONDS, help="seconds of the run with callers")
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory(prefix="tailor-bench-", ignore_cleanup_errors=True) as folder:
        state = Path(folder).resolve() / "state"
        state.mkdir(mode=0o700)
        house = build(Path(folder).resolve() / "house")
        with training_service(house, state, "inference") as service:
            figures = measure(house, service, seconds)
    print(section := render(figures))
    if seconds >= SECONDS:
        keep(NAME, figures, section)
    broken = [name for name, holds in BOUNDS.items() if not holds(figures[name])]
    print(f"broken: {', '.join(broken) or 'nothing'}")
    return 1 if broken else 0


def measure(house: House, service: Service, seconds: float) -> dict[str, Any]:
    """All figures. `seconds` are those of the run with callers; the other parts are in proportion."""
    stub = inference_pb2_grpc.InferenceServiceStub(service.channel("inference"))
    prompts = [row.prompt[-1]["content"] for row in house.held_out]
    with Callers(stub, prompts, f"{SEED} idle") as idle:
        time.sleep(seconds / 5)
    run = LongRun(service, seconds / 10, {"tokens": TRY_TOKENS} if seconds < SECONDS else {})
    callers = [Callers(stub, prompts, f"{SEED} half {half}") for half in (1, 2)]
    kept = [run.compare("callers", half, seconds / 2) for half in callers]
    beside_stream = run.compare("stream", endless_stream(stub, prompts[0]), seconds / 5)
    beside_programs = run.compare("programs", busy_programs(1, 1), seconds / 5)
    run.end()
    cores = len(os.sched_getaffinity(0))
    share = measure_share(cores, 1, 1, seconds=seconds / 20) / measure_share(cores, seconds=seconds / 20)
    during = call_during_reload_checks(service, Callers(stub, prompts, f"{SEED} reload checks"))
    answered = [call for half in callers for call in half.calls]
    return {
        "first_token_p95_s": max(percentile(answered, 95), percentile(during, 95)),
        "training_kept": round(float(np.mean(kept)), 3),
        "training_kept_beside_stream": round(beside_stream, 3),
        "pace_per_share": round(beside_programs / share, 3),
        "first_token_p50_s": percentile(answered, 50),
        "first_token_p95_run_s": percentile(answered, 95),
        "first_token_p95_reload_check_s": percentile(during, 95),
        "first_token_p95_idle_s": percentile(idle.calls, 95),
        "answer_p95_s": round(float(np.percentile([call.whole for call in answered], 95)), 3),
        "calls": len(answered),
        "calls_during_reload_checks": len(during),
        "share_beside_programs": round(share, 3),
        "steps_per_minute_alone": round(60 * run.pace("alone"), 2),
        "load": run.loads(),
        "cores": cores,
        "seconds": seconds,
    }


def percentile(calls: Sequence[TimedCall], percent: int) -> float:
    """A percentile of the seconds until the first token."""
    return round(float(np.percentile([call.first_token for call in calls], percent)), 3)


@dataclass(frozen=True)
class Window:
    """A stretch of a run, in seconds since 1970, and the machine's load at its end."""

    name: str
    begun: float
    ended: float
    load: float


class LongRun:
    """A run without an end, and the windows in which it was looked at. It trains by itself between them, `alone` seconds each time."""

    def __init__(self, service: Service, alone: float, batch: Mapping[str, int]) -> None:
        self._service, self._alone = service, alone
        self._windows: list[Window] = []
        limit = {"epochs": 100.0, "max_steps": 0, "max_tokens": 0}
        self._followed = service.begin("bench-long", recipe("lora", batch=dict(batch), limit=limit))
        self._wait_for_step(FIRST_STEP)
        self._look("alone", nullcontext(), alone)

    def compare(self, name: str, beside: AbstractContextManager[object], seconds: float) -> float:
        """The pace along with something else, as a share of the pace without it just before and after."""
        before = self._windows[-1]
        between = self._look(name, beside, seconds)
        after = self._look("alone", nullcontext(), self._alone)
        return self._pace([between]) / self._pace([before, after])

    def pace(self, name: str) -> float:
        """Steps per second in all windows of a name."""
        return self._pace([window for window in self._windows if window.name == name])

    def loads(self) -> dict[str, float]:
        """The machine's mean load by window."""
        names = {window.name for window in self._windows}
        return {
            name: round(float(np.mean([window.load for window in self._windows if window.name == name])), 1)
            for name in sorted(names)
        }

    def end(self) -> None:
        """Cancel it, and wait until it has ended."""
        self._service.cancel(self._followed.run.run_id)
        while self._followed.alive or self._service.workers():
            time.sleep(0.5)

    def _look(self, name: str, beside: AbstractContextManager[object], seconds: float) -> Window:
        with beside:
            begun, first = time.time(), len(self._followed.clocks)
            time.sleep(seconds)
            self._wait_for_step(first + MIN_STEPS)
            window = Window(name, begun, time.time(), os.getloadavg()[0])
        self._windows.append(window)
        taken = f"{window.ended - begun:.0f} s, load {window.load:.1f}"
        print(f"{name}: {taken}, {self._pace([window]) * 60:.1f} steps per minute", flush=True)
        return window

    def _wait_for_step(self, step: int) -> None:
        deadline = time.monotonic() + STEP_SECONDS * MIN_STEPS
        while len(self._followed.clocks) < step:
            if not self._followed.alive or time.monotonic() > deadline:
                run = self._followed.run
                raise SystemExit(f"the run ended, or does not go on: {run.reason} {run.message}")
            time.sleep(0.2)

    def _pace(self, windows: Sequence[Window]) -> float:
        """Steps per second: of whole steps only, so that each belongs to one window."""
        ends = list(self._followed.clocks.values())
        within = [[end for end in ends if window.begun <= end <= window.ended] for window in windows]
        return sum(len(part) - 1 for part in within) / sum(part[-1] - part[0] for part in within)


def call_during_reload_checks(service: Service, callers: Callers) -> list[TimedCall]:
    """The calls that were due while a short run's weights were reloaded and checked."""
    windows = []
    with callers:
        for number in range(RELOAD_CHECKS):
            chosen = recipe("lora", limit={"epochs": 1.0 + number, "max_steps": 1, "max_tokens": 0})
            followed = service.begin(f"bench-reload-check-{number}", chosen)
            followed.wait()
            windows.append((followed.phases["verifying"], time.time()))
            print(f"reload check: {windows[-1][1] - windows[-1][0]:.0f} s, load {os.getloadavg()[0]:.1f}", flush=True)
    return [call for call in callers.calls if any(begun <= call.due <= ended for begun, ended in windows)]


def render(figures: Mapping[str, Any]) -> str:
    """The section of the page."""
    loads = ", ".join(f"{name} {load}" for name, load in figures["load"].items())
    return f"""\
On {figures["cores"]} cores, {figures["seconds"]:.0f} seconds of a run with {figures["calls"]} calls, and {figures["calls_during_reload_checks"]} calls during reload checks. \
Load of the machine: {loads}.

| figure | measured | bound |
|---|---|---|
| first token, p95 of the worse of both, in seconds | {figures["first_token_p95_s"]} | below 2 |
| first token, median and p95 during the run | {figures["first_token_p50_s"]}, {figures["first_token_p95_run_s"]} | |
| first token, p95 during reload checks | {figures["first_token_p95_reload_check_s"]} | |
| first token, p95 without a run | {figures["first_token_p95_idle_s"]} | |
| whole answer, p95 during the run | {figures["answer_p95_s"]} | |
| pace of training with the callers | {figures["training_kept"]} | at least 0.6 |
| pace with an endless stream | {figures["training_kept_beside_stream"]} | at least 0.2 |
| pace with two busy programs, as a part of its share ({figures["share_beside_programs"]} of the whole) | {figures["pace_per_share"]} | at least 0.7 |"""


if __name__ == "__main__":
    sys.exit(main())
