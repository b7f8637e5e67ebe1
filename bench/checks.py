"""What checking costs: the CPU seconds of work with its checks and without them, both in turns in one run. `make bench-checks`.

Only CPU time counts, of this process and of those that it starts for the work, so other processes on the machine change little. Who begins
a pair of turns changes. The cost is the mean difference over the mean without checks, with a bootstrap over the pairs of turns (BCa, 95 %).
"""

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from bench.checks_work import EMPTY_CALLS, adapters, answers, calls, documents
from bench.report import keep

NAME = "checks"
ROUNDS = 20
LIMIT = 0.03


@dataclass(frozen=True)
class Work:
    """One piece of work. Each side does it once and returns its CPU seconds."""

    name: str
    checked: Callable[[], float]
    bare: Callable[[], float]


@dataclass(frozen=True)
class Cost:
    """CPU seconds of one piece of work, and what its checks add, as a share of the work without them."""

    work: str
    checked_cpu_seconds: float
    bare_cpu_seconds: float
    share: float
    low: float
    high: float


def main() -> None:
    """Measure every piece of work, and keep the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.checks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="pairs of turns")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        costs = [measure(work, arguments.rounds) for work in all_work(Path(folder))]
    figures = {
        "cores": os.cpu_count(),
        "rounds": arguments.rounds,
        "limit": LIMIT,
        "costs": [asdict(cost) for cost in costs],
    }
    keep(NAME, figures, "\n".join(to_lines(costs)))
    print("\n".join(to_lines(costs)))


def all_work(folder: Path) -> Iterator[Work]:
    """The pieces of work, one after the other, so that none waits in memory while another is measured."""
    for make in (documents, answers, adapters, calls):
        yield from (Work(*parts) for parts in make(folder))


def measure(work: Work, rounds: int) -> Cost:
    """Let both sides do the work in turns; each does it once before."""
    work.checked(), work.bare()
    pairs = []
    for number in range(rounds):
        if number % 2:
            checked, bare = work.checked(), work.bare()
        else:
            bare, checked = work.bare(), work.checked()
        pairs.append((checked, bare))
    return to_cost(work.name, np.array(pairs))


def to_cost(name: str, pairs: np.ndarray) -> Cost:
    """The cost from CPU seconds (pairs, 2), with checks and without."""

    def share(checked: np.ndarray, bare: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.asarray((checked.mean(axis=axis) - bare.mean(axis=axis)) / bare.mean(axis=axis))

    checked, bare = pairs.T
    interval = stats.bootstrap((checked, bare), share, paired=True, vectorized=True, rng=0).confidence_interval
    return Cost(
        name,
        float(checked.mean()),
        float(bare.mean()),
        float(share(checked, bare)),
        float(interval.low),
        float(interval.high),
    )


def to_lines(costs: list[Cost]) -> Iterator[str]:
    """The table of the page, and what the checks of a call take by themselves."""
    yield "| work | CPU ms with checks | without | cost |"
    yield "|---|---:|---:|---:|"
    for cost in costs:
        if cost.work not in EMPTY_CALLS.values():
            share = f"{100 * cost.share:+.2f} % [{100 * cost.low:+.2f}, {100 * cost.high:+.2f}]"
            yield f"| {cost.work} | {1000 * cost.checked_cpu_seconds:,.2f} | {1000 * cost.bare_cpu_seconds:,.2f} | {share} |"
    yield ""
    for cost in costs:
        if cost.work in EMPTY_CALLS.values():
            low, mean, high = (1000 * cost.bare_cpu_seconds * share for share in (cost.low, cost.share, cost.high))
            yield f"- {cost.work}: {mean:+.2f} ms [{low:+.2f}, {high:+.2f}] on top of gRPC's {1000 * cost.bare_cpu_seconds:.2f} ms."


if __name__ == "__main__":
    main()
