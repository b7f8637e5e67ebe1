"""Where a bench's figures go: `.tailor/bench/NAME.json`, and the bench's own section of docs/benchmarks.md."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"
PLOTS = ROOT / "docs" / "benchmarks"


def read_figures(name: str) -> dict[str, Any]:
    """The figures that were kept last; empty if there are none."""
    report = _report(name)
    figures: dict[str, Any] = json.loads(report.read_text(encoding="utf-8")) if report.exists() else {}
    return figures


def store(name: str, figures: Mapping[str, Any]) -> None:
    """Keep the figures only."""
    report = _report(name)
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def keep(name: str, figures: Mapping[str, Any], section: str, page: Path = PAGE) -> None:
    """Keep the figures, and replace what the page has between `<!-- NAME -->` and `<!-- /NAME -->`."""
    store(name, figures)
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, _, rest = page.read_text(encoding="utf-8").partition(begin)
    _, _, after = rest.partition(end)
    page.write_text(f"{before}{begin}\n\n{section}\n\n{end}{after}", encoding="utf-8")


def _report(name: str) -> Path:
    return ROOT / ".tailor" / "bench" / f"{name}.json"
