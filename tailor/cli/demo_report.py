"""What the demo found out: `demo.json`, and the same as tables."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from tailor.cli.ask import side_by_side
from tailor.cli.output import short, table


@dataclass(frozen=True)
class DatasetFigures:
    """The dataset; `rows` are those to train on."""

    digest: str
    rows: int
    held_out: int


@dataclass(frozen=True)
class RunFigures:
    """The run; losses in nats per token."""

    id: str
    seconds: float
    steps: int
    first_loss: float
    last_loss: float
    tokens_per_second: float


@dataclass(frozen=True)
class AdapterFigures:
    """The adapter."""

    digest: str


@dataclass(frozen=True)
class ScoreFigures:
    """Each metric of both models on the held-out rows."""

    base: Mapping[str, float]
    tuned: Mapping[str, float]


@dataclass(frozen=True)
class AnswerPair:
    """One question answered by both; `draft_id` is the specialist's."""

    question: str
    base: str
    tuned: str
    draft_id: str


@dataclass
class Report:
    """Filled in as the demo goes."""

    documents_published: int = 0
    documents_anonymized: int = 0
    documents_rejected: dict[str, int] = field(default_factory=dict)
    personal_data_found: dict[str, int] = field(default_factory=dict)
    dataset: DatasetFigures | None = None
    run: RunFigures | None = None
    adapter: AdapterFigures | None = None
    scores: ScoreFigures | None = None
    promoted: bool = False
    answers: list[AnswerPair] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    def save(self, path: Path) -> None:
        """Write it in one step."""
        partial = path.with_name(f".{path.name}.part")
        partial.write_text(json.dumps(self.document(), ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        partial.replace(path)


def print_report(console: Console, report: Report) -> None:
    """The answers, the scores and the figures, for people."""
    for pair in report.answers:
        console.print(f"\n[bold]Question[/] (draft {pair.draft_id})")
        console.print(pair.question, markup=False, highlight=False)
        console.print(side_by_side([("base", pair.base), ("tuned", pair.tuned)]))
    if report.scores:
        console.print(_scores(report.scores))
    console.print(_summary(report), highlight=False)


def _scores(scores: ScoreFigures) -> Any:
    rows = [
        (
            name,
            f"{scores.base[name]:.3f}",
            f"{scores.tuned[name]:.3f}",
            f"{scores.tuned[name] - scores.base[name]:+.3f}",
        )
        for name in sorted(set(scores.base) & set(scores.tuned))
    ]
    return table("\nScores on held-out rows (perplexity: less is better)", ("metric", "base", "tuned", "change"), rows)


def _summary(report: Report) -> str:
    lines = [
        f"documents  {report.documents_published} published, {report.documents_anonymized} anonymised, "
        f"{sum(report.documents_rejected.values())} rejected, {sum(report.personal_data_found.values())} personal values replaced"
    ]
    if report.dataset:
        lines.append(
            f"dataset    {short(report.dataset.digest)}, {report.dataset.rows} rows, {report.dataset.held_out} held out"
        )
    if report.run:
        run = report.run
        lines.append(
            f"run        {run.steps} steps in {run.seconds:.0f} s, loss {run.first_loss:.2f} to {run.last_loss:.2f}, "
            f"{run.tokens_per_second:.0f} tokens/s"
        )
    if report.adapter:
        lines.append(f"adapter    {short(report.adapter.digest)}, {'promoted' if report.promoted else 'not promoted'}")
    return "\n" + "\n".join(lines)
