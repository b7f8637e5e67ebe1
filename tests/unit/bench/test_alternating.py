"""Sides that take turns."""

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import astuple
from itertools import pairwise
from pathlib import Path

import pytest

from bench.alternating import Contender, Look, alternate
from tests.waiting import wait_until

pytestmark = pytest.mark.release

COUNT = "import sys, time\nwhile True:\n    open(sys.argv[1], 'a').write(f'{time.time()}\\n')\n    time.sleep(0.01)\n"
ENOUGH = 60


@pytest.fixture
def children() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that are killed after the test."""
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def held_counter(path: Path, children: list[subprocess.Popen[bytes]]) -> Contender:
    child = subprocess.Popen([sys.executable, "-c", COUNT, str(path)])
    children.append(child)
    wait_until(path.exists)
    side = Contender(lambda: [child.pid], lambda: [child.pid], lambda: len(moments(path)) > ENOUGH)
    side.hold()
    return side


def moments(path: Path) -> list[float]:
    return [float(line) for line in path.read_text().splitlines()]


def test_one_side_runs_while_the_other_is_held(tmp_path: Path, children: list[subprocess.Popen[bytes]]) -> None:
    sides = {name: held_counter(tmp_path / name, children) for name in ("one", "other")}
    begun = time.time()
    alternate(sides["one"], sides["other"], turn_seconds=0.2)
    windows = {name: [(began.clock, ended.clock) for began, ended in side.windows] for name, side in sides.items()}
    assert len(windows["one"]) > 2
    for name, side in sides.items():
        late = [moment for moment in moments(tmp_path / name) if moment > begun]
        # A signal takes a moment to stop a process, but less than half a turn.
        assert all(any(began - 0.1 <= moment <= ended + 0.1 for began, ended in windows[name]) for moment in late)
        assert side.ended()
    between = sorted(window for name in windows for window in windows[name][1:])
    assert all(ended <= began for (_, ended), (began, _) in pairwise(between))


def test_what_a_side_ran_is_what_its_windows_share_with_the_time_asked_for() -> None:
    side = Contender(list, list, lambda: True)
    side.windows = [(Look(10, 1), Look(20, 3)), (Look(30, 5), Look(40, 9)), (Look(50, 9), Look(60, 19))]
    assert astuple(side.ran(15, 52)) == pytest.approx((5 + 10 + 2, 1 + 4 + 2))
    assert side.ran(21, 29) == Look(0, 0)
