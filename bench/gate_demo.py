"""How many fresh demos are promoted: `tailor demo` in empty state directories, one after another.

`python -m bench.gate_demo --times 10`; the figures join those of `python -m bench.gate` in `.tailor/bench/gate.json`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.gate_page import keep_figures
from bench.report import ROOT
from tailor.local import stack

# The last lines of a demo's output that are kept if it does not promote.
KEPT_LINES = 20


def main() -> None:
    """Run the demos and store the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.gate_demo", description="Run fresh demos.")
    parser.add_argument("--times", type=int, default=10, help="number of demos")
    parser.add_argument("--folder", type=Path, help="keep the state directories here; by default, they are deleted")
    arguments = parser.parse_args()
    demos = []
    for number in range(1, arguments.times + 1):
        with open_state_dir(arguments.folder, number) as state_dir:
            demos.append(summarise(*run_demo(state_dir)))
        print(f"demo {number}: {json.dumps(demos[-1], ensure_ascii=False)}", flush=True)
        print(keep_figures(count_promoted(demos)), flush=True)


@contextmanager
def open_state_dir(folder: Path | None, number: int) -> Iterator[Path]:
    """A state directory that does not exist yet. Raises FileExistsError if the folder has one of this number."""
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="tailor-demo-") as place:
            yield Path(place) / "state"
        return
    (folder / f"demo-{number}").mkdir(parents=True)
    yield folder.absolute() / f"demo-{number}" / "state"


def run_demo(state_dir: Path) -> tuple[dict[str, Any], float, int, str]:
    """One demo's figures, empty if it has none, its seconds without installation, its exit status and its messages."""
    command = [sys.executable, "-m", "tailor.cli.main", "--state-dir", str(state_dir), "demo"]
    started = time.monotonic()
    try:
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    finally:
        # A demo that was killed leaves its stack.
        stack.down(state_dir)
    seconds = time.monotonic() - started
    file = state_dir / "demo.json"
    figures = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return figures, seconds, result.returncode, result.stderr


def summarise(figures: dict[str, Any], seconds: float, status: int, output: str) -> dict[str, Any]:
    """A demo counts as promoted if it ended well and passed the gate. Otherwise its last lines are kept."""
    verdict = figures.get("verdict", {"decision": "failed", "reasons": []})
    promoted = status == 0 and verdict["decision"] == "passed"
    return {
        "promoted": promoted,
        "decision": verdict["decision"],
        "reasons": verdict["reasons"],
        "seconds": round(seconds, 1),
        "steps": figures.get("seconds", {}),
        "output": [] if promoted else output.splitlines()[-KEPT_LINES:],
    }


def count_promoted(demos: list[dict[str, Any]]) -> dict[str, Any]:
    """The issue's figure with what it was counted from."""
    return {"demo_promoted": sum(demo["promoted"] for demo in demos), "demo_times": len(demos), "demos": demos}


if __name__ == "__main__":
    main()
