"""What `make demo` gives: several fresh demos, and the median and range of every metric that their evaluations show.

`python -m bench.demo --times 5`. The table goes into README.md, the figures into `.tailor/bench/demo.json`.
"""

import argparse
import json
import os
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bench.gate_demo import open_state_dir, run_demo, summarise
from bench.report import ROOT, keep
from tailor.cli.definitions import read_definition
from tailor.cli.demo import SAMPLE
from tailor.cli.figures import describe_gate

NAME = "demo"
README = ROOT / "README.md"
MODELS = {"base": "base", "few_shot": "base with an example", "candidate": "tuned"}
GAINS = {"base": "gain over the base", "few_shot": "over the base with an example"}


def main() -> None:
    """Run the demos, or read those that ran, and store the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.demo", description="Run fresh demos and describe them.")
    parser.add_argument("--times", type=int, default=5, help="number of demos")
    parser.add_argument("--folder", type=Path, help="keep the state directories here; by default, they are deleted")
    parser.add_argument(
        "--read", type=Path, nargs="+", default=[], help="demo.json of demos that ran, instead of new ones"
    )
    arguments = parser.parse_args()
    demos = [read_demo(file) for file in arguments.read] or [*_run(arguments.times, arguments.folder)]
    section = render(demos, _describe_machine())
    keep(NAME, {"demos": demos}, section, README)
    print(section)


def read_demo(file: Path) -> dict[str, Any]:
    """A demo by its `demo.json`."""
    figures = json.loads(file.read_text(encoding="utf-8"))
    return to_demo(figures, sum(figures["seconds"].values()), 0 if figures["promoted"] else 1, "")


def to_demo(figures: dict[str, Any], seconds: float, status: int, output: str) -> dict[str, Any]:
    """Its verdict, its seconds and what it measured; nothing was measured if it failed."""
    evaluation = figures.get("evaluation") or {}
    measured = [*evaluation.get("metrics", ()), *evaluation.get("suites", ())]
    return summarise(figures, seconds, status, output) | {"rows": evaluation.get("rows", 0), "metrics": measured}


def _run(times: int, folder: Path | None) -> Iterator[dict[str, Any]]:
    for number in range(1, times + 1):
        with open_state_dir(folder, number) as state_dir:
            demo = to_demo(*run_demo(state_dir))
        print(f"demo {number}: {demo['decision']} in {demo['seconds']:.0f} s {' '.join(demo['output'])}", flush=True)
        yield demo


def render(demos: Sequence[Mapping[str, Any]], machine: str) -> str:
    """The table, how many demos were promoted, and by what the gate decides."""
    measured = [demo for demo in demos if demo["metrics"]]
    seconds = sorted(demo["seconds"] for demo in demos)
    rows = sorted({demo["rows"] for demo in measured})
    promoted = sum(demo["promoted"] for demo in demos)
    return "\n".join(
        (
            f"Median of {len(measured)} demo{'s' * (len(measured) != 1)} in fresh directories ({machine}), with the lowest and highest in parentheses; {promoted} of "
            f"{len(demos)} were promoted, in {seconds[0]:.0f} to {seconds[-1]:.0f} s each without installation. Each evaluation measured "
            f"{' to '.join(map(str, rows[:: len(rows) - 1 or 1]))} held-out rows. A positive gain is better; a demo counts as certain if "
            "its 95 % interval excludes zero.",
            "",
            f"| | {' | '.join((*MODELS.values(), *GAINS.values()))} |",
            "|---|" + "---|" * (len(MODELS) + len(GAINS)),
            *_list_rows(measured),
            "",
            "The gate decides by these conditions, and by no other row:",
            "",
            *(f"- {line}" for line in describe_gate(read_definition(SAMPLE / "specialist.toml").gate)),
        )
    )


def _list_rows(demos: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A line for each metric that a demo shows, in the order of the evaluation."""
    names = dict.fromkeys(item["metric"] for demo in demos for item in demo["metrics"])
    for name in names:
        found = [item for demo in demos for item in demo["metrics"] if item["metric"] == name]
        lower = " (lower is better)" if found[0]["lower_is_better"] else ""
        values = [_describe_range(item["models"].get(model) for item in found) for model in MODELS]
        gains = [_describe_gain([item["gains"].get(model) for item in found]) for model in GAINS]
        yield f"| {name.replace('_', ' ')}{lower} | {' | '.join((*values, *gains))} |"


def _describe_range(estimates: Iterable[Mapping[str, Any] | None], sign: str = "") -> str:
    """The median, and the lowest and highest value; empty without any."""
    values = sorted(item["value"] for item in estimates if item and item["value"] is not None)
    if not values:
        return ""
    return f"{median(values):{sign}.3f} ({values[0]:{sign}.3f} to {values[-1]:{sign}.3f})"


def _describe_gain(estimates: Sequence[Mapping[str, Any] | None]) -> str:
    """The range of a gain, and in how many demos it was certain."""
    known = [item for item in estimates if item and None not in (item["low"], item["high"])]
    better, worse = sum(item["low"] > 0 for item in known), sum(item["high"] < 0 for item in known)
    certain = [f"better in {better}"] * bool(better) + [f"worse in {worse}"] * bool(worse)
    text = _describe_range(estimates, "+")
    return f"{text}; certainly {' and '.join(certain)} of {len(known)}" if text and certain else text


def _describe_machine() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    return f"commit {commit}, {time.strftime('%-d %B %Y', time.gmtime())}, {len(os.sched_getaffinity(0))} cores"


if __name__ == "__main__":
    main()
