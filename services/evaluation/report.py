"""The stored report: report.json, report.md and scores.png."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from services.evaluation.comparison import ReportedModel, ReportedRow
from services.evaluation.domain import (
    CANDIDATE,
    PARITY,
    Definition,
    Estimate,
    Goal,
    HeldOutRow,
    MetricFigures,
    ModelCost,
    ModelResult,
    ReportData,
    Score,
)
from services.evaluation.statistics import METHOD
from tailor.errors import NotFound, Reason
from tailor.storage.buckets import REPORTS
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref
from tailor.values import SamplingDefaults, Thinking

JSON, MARKDOWN, PLOT = "report.json", "report.md", "scores.png"
EXAMPLES = 3


class ReportStore:
    """Reports in object storage. report.json is written last, so a report that has it is complete."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def write(self, data: ReportData) -> Ref:
        """Store report.json, report.md and scores.png. Returns the reference of report.json."""
        folder = data.evaluation.evaluation_id
        # Imports matplotlib.
        from services.evaluation.plot import draw_figures

        self._store.put(REPORTS, f"{folder}/{PLOT}", draw_figures(data.metrics), "image/png")
        self._store.put(REPORTS, f"{folder}/{MARKDOWN}", as_markdown(data).encode(), "text/markdown")
        return self._store.put(REPORTS, f"{folder}/{JSON}", as_json(data), "application/json")

    def markdown(self, report: Ref) -> str:
        """The report as Markdown. Raises NotFound if it was deleted."""
        return self._read_part(report, MARKDOWN).decode()

    def plot(self, report: Ref) -> bytes:
        """The plot as PNG. Raises NotFound if it was deleted."""
        return self._read_part(report, PLOT)

    def read_model(self, report: Ref, model: str) -> ReportedModel:
        """Every row of a report with one model's answer and values. Raises NotFound if the report or the model does not exist."""
        document = json.loads(self._store.read(report.bucket, report.key))
        if not any(model in row["models"] for row in document["rows"]):
            raise NotFound(Reason.UNKNOWN_EVALUATION, f"The evaluation did not measure the model {model}.")
        return ReportedModel(
            rows=tuple(_read_row(row, model) for row in document["rows"]),
            lower_is_better={item["metric"]: bool(item["lower_is_better"]) for item in document["metrics"]},
        )

    def quotes(self, evaluation_id: str, document_id: str) -> bool:
        """True if an evaluation's report contains rows of a document or is incomplete."""
        if not self._store.exists(REPORTS, f"{evaluation_id}/{JSON}"):
            return True
        report = json.loads(self._store.read(REPORTS, f"{evaluation_id}/{JSON}"))
        quoting = [*report["rows"], *report.get("notes", {}).values()]
        return any(document_id in part.get("document_ids", ()) for part in quoting)

    def delete(self, evaluation_id: str) -> int:
        """Delete an evaluation's report. Returns the number of its objects."""
        names = [f"{evaluation_id}/{name}" for name in (PLOT, MARKDOWN, JSON)]
        keys = [key for key in names if self._store.exists(REPORTS, key)]
        for key in keys:
            self._store.delete(REPORTS, key)
        return len(keys)

    def _read_part(self, report: Ref, name: str) -> bytes:
        return self._store.read(report.bucket, report.key.removesuffix(JSON) + name)


def _read_row(row: Mapping[str, Any], model: str) -> ReportedRow:
    """A row of report.json. Values that are not finite numbers are left out."""
    answer = row["models"].get(model, {}).get("answer")
    values = {metric: by_model.get(model) for metric, by_model in row["metrics"].items()}
    held_out = HeldOutRow(
        row_id=row["row_id"],
        task=row["task"],
        document_ids=tuple(row["document_ids"]),
        messages=tuple((message["role"], message["content"]) for message in row["messages"]),
        reference=row["reference"],
        language=row["language"],
    )
    return ReportedRow(
        held_out,
        None if answer is None else str(answer["text"]),
        {metric: float(value) for metric, value in values.items() if value is not None},
    )


def as_json(data: ReportData) -> bytes:
    """Figures, sampling, and every row with each model's answer, scores and values. What is not a finite number is null."""
    evaluation, incumbent = data.evaluation, data.incumbent
    document = {
        "evaluation_id": evaluation.evaluation_id,
        "adapter_digest": evaluation.adapter.digest,
        "specialist": evaluation.adapter.specialist,
        "specialist_revision": data.terms.revision,
        "dataset_digest": evaluation.adapter.dataset_digest,
        "base": evaluation.adapter.base,
        "incumbent_digest": incumbent.adapter_digest if incumbent else "",
        "incumbent_generation": incumbent.generation if incumbent else 0,
        "sampling": asdict(data.terms.sampling),
        "intervals": METHOD,
        "held_out_rows": data.held_out.total,
        "rows_too_long": data.held_out.too_long,
        "metrics": [asdict(figures) for figures in data.metrics],
        "suites": [asdict(figures) for figures in data.suites],
        "suite_details": dict(data.suite_details),
        "suite_seconds": {name: round(seconds, 2) for name, seconds in data.suite_seconds.items()},
        "costs": [asdict(cost) for cost in data.costs],
        "not_measured": dict(data.not_measured),
        "notes": {model: dict(result.notes) for model, result in data.results.items() if result.notes},
        "goals": [asdict(goal) for goal in data.goals],
        "definitions": [
            {"digest": entry.digest, "revision": entry.revision, "frozen_at": entry.freeze_time.isoformat()}
            for entry in data.definitions
        ],
        "counts": {metric: dict(counts) for metric, counts in data.counts.items() if counts},
        "rows": [_row(data, number) for number in range(len(data.held_out.rows))],
    }
    return json.dumps(_finite(document), indent=1, ensure_ascii=False, allow_nan=False).encode()


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return value


def _row(data: ReportData, number: int) -> dict[str, object]:
    row = data.held_out.rows[number]
    return {
        "row_id": row.row_id,
        "task": row.task,
        "language": row.language,
        "document_ids": list(row.document_ids),
        "messages": [{"role": role, "content": content} for role, content in row.messages],
        "reference": row.reference,
        **({} if row.rejected is None else {"rejected": row.rejected}),
        "models": {model: _model_row(result, number) for model, result in data.results.items()},
        "metrics": {
            metric: {model: values[number] for model, values in by_model.items()}
            for metric, by_model in data.row_values.items()
        },
    }


def _model_row(result: ModelResult, number: int) -> dict[str, object]:
    answer = result.answers[number]
    rejected = result.rejected_scores[number] if result.rejected_scores else None
    return {
        "answer": None if answer is None else asdict(answer),
        "score": _score(result.scores[number]),
        "rejected_score": _score(rejected),
    }


def _score(score: Score | None) -> dict[str, float] | None:
    return None if score is None else asdict(score)


def as_markdown(data: ReportData) -> str:
    """Tables of figures, gains and costs with intervals, the plot, and a few rows with the answers of all models."""
    evaluation, incumbent = data.evaluation, data.incumbent
    models = list(data.results)
    served = (
        f"`{incumbent.adapter_digest or 'base'}` (generation {incumbent.generation})" if incumbent else "nothing yet"
    )
    lines = [
        f"# Evaluation of {evaluation.adapter.specialist}",
        "",
        f"Adapter `{evaluation.adapter.digest}`, dataset `{evaluation.adapter.dataset_digest}`, {len(data.held_out.rows)} of "
        f"{data.held_out.total} held-out rows, {len(data.held_out.answered)} of them answered, {_sampling(data.terms.sampling)}. "
        f"Definition of the specialist: revision {data.terms.revision}. Serving at the time: {served}.",
        *_too_long(data.held_out.too_long),
        "",
        *_table("metric", models, [(_name(figures), figures.models) for figures in data.metrics]),
        "",
        "## Gains of the candidate",
        "",
        "Positive is better, also if a lower value is.",
        "",
        *_table("gain over", models[:-1], [(figures.metric, figures.gains) for figures in data.metrics], sign="+"),
        "",
        f"Intervals: {METHOD}; rows of one document are one cluster.",
        "",
        *_suites(data.suites, data.suite_seconds),
        *_skipped(data),
        "",
        *_goals(data.goals),
        *_definitions(data.definitions),
        "",
        *_costs(data.costs),
        "",
        *_notes(data.results),
        f"![figures]({PLOT})",
    ]
    for row in [row for row in data.held_out.rows if row.row_id in data.held_out.answered][:EXAMPLES]:
        lines += ["", *_example(data, data.held_out.rows.index(row), models)]
    return "\n".join(lines) + "\n"


def _too_long(rows: int) -> list[str]:
    return ["", f"Left out: {rows} held-out rows that do not fit the context that inference serves."] if rows else []


def _skipped(data: ReportData) -> list[str]:
    """What was not measured, and what is shown without counting in the gate."""
    shown = {figures.metric for figures in data.metrics}
    return [
        f"{'Does not count' if name in shown else 'Not measured'}: {name} ({reason})."
        for name, reason in data.not_measured.items()
    ]


def _goals(goals: Sequence[Goal]) -> list[str]:
    rows = [
        f"| {goal.metric} | {'gain over base' if goal.is_gain else 'value'} | {goal.goal:g} | {describe(goal.estimate)} | {goal.state} |"
        for goal in goals
    ]
    return ["| goal | of | wanted | measured | state |", "|---|---|---:|---:|---|", *rows, ""] if goals else []


def _definitions(definitions: Sequence[Definition]) -> list[str]:
    """Since when the metrics and the gate hold, and what they replaced."""
    if not definitions:
        return []
    *earlier, current = definitions
    lines = [f"Metrics and gate: frozen on {current.freeze_time:%Y-%m-%d} at revision {current.revision}."]
    if earlier:
        revisions = ", ".join(f"revision {entry.revision} of {entry.freeze_time:%Y-%m-%d}" for entry in earlier)
        lines.append(
            f"They were changed after evaluations by {revisions}, whose figures cannot be compared with these."
        )
    return lines


def _name(figures: MetricFigures) -> str:
    return f"{figures.metric} (lower is better)" if figures.lower_is_better else figures.metric


def _sampling(sampling: SamplingDefaults) -> str:
    drawn = f"temperature {sampling.temperature:g}, top_p {sampling.top_p:g}" if sampling.temperature else "greedy"
    limit = f"at most {sampling.max_tokens} tokens" if sampling.max_tokens else "as long as the context allows"
    thinking = "" if sampling.thinking == Thinking.OFF else ", after a thought"
    return f"{drawn}, repetition penalty {sampling.repetition_penalty:g}, {limit}{thinking}"


def _table(
    corner: str, models: Sequence[str], rows: Sequence[tuple[str, Mapping[str, Estimate]]], sign: str = ""
) -> list[str]:
    """A row per metric, with an estimate per model and the number of rows."""
    lines = [f"| {corner} | {' | '.join(models)} | rows |", f"|---|{'---:|' * (len(models) + 1)}"]
    for name, estimates in rows:
        cells = [describe(estimates[model], sign) if model in estimates else "" for model in models]
        count = max((estimate.rows for estimate in estimates.values()), default=0)
        lines.append(f"| {name} | {' | '.join(cells)} | {count} |")
    return lines


def describe(estimate: Estimate, sign: str = "") -> str:
    """A value with its interval."""
    if not math.isfinite(estimate.high - estimate.low):
        return "" if math.isnan(estimate.value) else f"{estimate.value:{sign}.4f} (no interval)"
    return f"{estimate.value:{sign}.4f} ({estimate.low:{sign}.4f} to {estimate.high:{sign}.4f})"


def _suites(suites: Sequence[MetricFigures], seconds: Mapping[str, float]) -> list[str]:
    lines = []
    parity = next((figures.models[CANDIDATE].value for figures in suites if figures.metric == PARITY), None)
    if parity is None:
        lines.append("Parity with the trainer was not measured, because the adapter has no probe rows.")
    else:
        lines.append(
            f"Parity: on the probe rows, the candidate differs from the trainer by at most {parity:.4f} nats per token."
        )
    others = [figures for figures in suites if figures.metric != PARITY]
    models = list(dict.fromkeys(model for figures in others for model in figures.models))
    table = _table("suite", models, [(_name(figures), figures.models) for figures in others])
    took = ", ".join(f"{name} {duration:.0f} s" for name, duration in seconds.items())
    return [*lines, "", *(table if others else []), "", *([f"The suites took: {took}.", ""] if took else [])]


def _costs(costs: Sequence[ModelCost]) -> list[str]:
    lines = [
        "| model | answers | cut | median seconds | 95 % within | prompt tokens | answer tokens | price of 1,000 |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for cost in costs:
        price = "" if cost.price_per_1000 is None else f"{cost.price_per_1000:.2f} {cost.currency}"
        lines.append(
            f"| {cost.model} | {cost.answers} | {cost.cut_answers} | {cost.median_seconds:.2f} | {cost.p95_seconds:.2f} "
            f"| {cost.prompt_tokens:.0f} | {cost.answer_tokens:.0f} | {price} |"
        )
    return lines


def _notes(results: Mapping[str, ModelResult]) -> list[str]:
    """How the prompts of models were made, a line for each note."""
    lines = []
    for model, result in results.items():
        lines += [f"{model}: {name} {_note(value)}." for name, value in result.notes.items() if name != "document_ids"]
    return [*lines, ""] if lines else []


def _note(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {count}" for key, count in value.items())
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)


def _example(data: ReportData, number: int, models: Sequence[str]) -> list[str]:
    row = data.held_out.rows[number]
    parts = [("prompt", row.messages[-1][1]), ("reference", row.reference)]
    answers = ((name, data.results[name].answers[number]) for name in models)
    parts += [(name, answer.text) for name, answer in answers if answer is not None]
    lines = [f"## Row {row.row_id}", ""]
    for name, text in parts:
        lines += [f"**{name}**", "", *(f"> {line}".rstrip() for line in text.split("\n")), ""]
    return lines[:-1]
