"""`make bench-inference`: speed, overhead of our layer, load, rollouts and the death of a replica. About 20 minutes on two cores.

`python -m bench.inference speed latency load rollout kill` measures only the named parts, and keeps the figures of the others. Each part's figures
are stored as soon as it ends. `--tiny` uses a base of random weights and small sizes, and stores nothing; it shows that the bench works.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from bench import inference_events, inference_layer, inference_page, inference_speed
from bench.inference_house import SMOLLM2, TINY, Base, House, open_house
from bench.inference_load import ServedSpecialists
from bench.report import PLOTS, ROOT, keep

NAME = "inference"
TINY_OPTION = "--tiny"


class Bench:
    """The parts of the bench. They share one house with its base and specialists."""

    def __init__(self, house: House, name: str) -> None:
        self._house = house
        self._name = name
        self._tiny = name == TINY
        self._threads = len(os.sched_getaffinity(0))

    @cached_property
    def _base(self) -> Base:
        return self._house.publish_base(self._name)

    @cached_property
    def _stage(self) -> ServedSpecialists:
        return ServedSpecialists(self._house, self._base)

    def speed(self) -> dict[str, Any]:
        """Tokens per second, compared with others."""
        size = (
            inference_speed.SpeedSize(tokens=8, rounds=1, one_by_one=1) if self._tiny else inference_speed.SpeedSize()
        )
        return inference_speed.measure(self._house, self._base, size, self._threads)

    def latency(self) -> dict[str, Any]:
        """Overhead of our layer."""
        small = inference_layer.OverheadSize(lengths=(1, 2), turns=1, calls=2, rounds=1, tokens=8)
        return inference_layer.measure(
            self._house, self._base, small if self._tiny else inference_layer.OverheadSize(), self._threads
        )

    def load(self) -> dict[str, Any]:
        """Many callers."""
        return inference_events.measure_load(self._stage, self._size)

    def rollout(self) -> dict[str, Any]:
        """Many callers while specialists change."""
        return inference_events.measure_rollouts(self._stage, self._size)

    def kill(self) -> dict[str, Any]:
        """Many callers of two replicas, one of which is killed."""
        return inference_events.measure_kill(self._stage, self._size)

    @property
    def _size(self) -> inference_events.LoadSize:
        if not self._tiny:
            return inference_events.LoadSize()
        return inference_events.LoadSize(requests=100, rollouts=1, period_seconds=1, kill_after=50, after_restart=50)

    def parts(self) -> Mapping[str, Callable[[], dict[str, Any]]]:
        """Every part by its name, in order."""
        return {part.__name__: part for part in (self.speed, self.latency, self.load, self.rollout, self.kill)}


def main(arguments: list[str]) -> None:
    """Measure, print and store."""
    tiny = TINY_OPTION in arguments
    chosen = [part for part in arguments if part != TINY_OPTION]
    report = ROOT / ".tailor" / "bench" / f"{NAME}.json"
    figures: dict[str, Any] = {}
    if report.exists() and chosen and not tiny:
        figures = json.loads(report.read_text(encoding="utf-8"))
    with open_house() as house:
        parts = Bench(house, TINY if tiny else SMOLLM2).parts()
        unknown = set(chosen) - set(parts)
        if unknown:
            raise SystemExit(f"Unknown part: {', '.join(sorted(unknown))}. The parts are {', '.join(parts)}.")
        for part in chosen or parts:
            figures |= {"cores": os.cpu_count()} | parts[part]()
            if not tiny:
                inference_page.plot(figures, PLOTS / f"{NAME}.svg")
                keep(NAME, figures, inference_page.render(figures))
    print(json.dumps(figures, indent=2))
    print(inference_page.render(figures))


if __name__ == "__main__":
    main(sys.argv[1:])
