"""Sides that take turns."""

import subprocess
import sys
import time
from dataclasses import astuple
from itertools import pairwise
from pathlib import Path

import pytest

from bench.alternating import Look, Side, alternate

COUNT = "import sys, time\nwhile True:\n    open(sys.argv[1], 'a').write(f'{time.time()}\\n')\n    time.sleep(0.01)\n"
ENOUGH = 60


def held_counter(path: Path) -> Side:
    child = subprocess.Popen([sys.executable, "-c", COUNT, str(path)])
    while not path.exists():
        time.sleep(0.01)
    side = Side(lambda: [child.pid], lambda: [child.pid], lambda: len(moments(path)) > ENOUGH)
    side.hold()
    return side


def moments(path: Path) -> list[float]:
    return [float(line) for line in path.read_text().splitlines()]


def test_one_side_runs_while_the_other_is_held(tmp_path: Path) -> None:
    sides = {name: held_counter(tmp_path / name) for name in ("one", "other")}
    try:
        begun = time.time()
        alternate(sides["one"], sides["other"], turn_seconds=0.2)
        windows = {name: [(began.clock, ended.clock) for began, ended in side.windows] for name, side in sides.items()}
        assert len(windows["one"]) > 2
        for name, side in sides.items():
            late = [moment for moment in moments(tmp_path / name) if moment > begun]
            # A signal takes a moment to stop a process.
            assert all(any(began - 0.01 <= moment <= ended + 0.01 for began, ended in windows[name]) for moment in late)
            assert side.ended()
        between = sorted(window for name in windows for window in windows[name][1:])
        assert all(ended <= began for (_, ended), (began, _) in pairwise(between))
    finally:
        for side in sides.values():
            for process in side.held():
                subprocess.run(["kill", "-KILL", str(process)], check=True)


def test_what_a_side_ran_is_what_its_windows_share_with_the_time_asked_for() -> None:
    side = Side(list, list, lambda: True)
    side.windows = [(Look(10, 1), Look(20, 3)), (Look(30, 5), Look(40, 9)), (Look(50, 9), Look(60, 19))]
    assert astuple(side.ran(15, 52)) == pytest.approx((5 + 10 + 2, 1 + 4 + 2))
    assert side.ran(21, 29) == Look(0, 0)
