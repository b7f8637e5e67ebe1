"""The stored report: report.json, report.md and scores.png."""

import io
import json
from collections.abc import Mapping

from matplotlib.figure import Figure

from services.evaluation.domain import BASE, CANDIDATE, INCUMBENT, PARITY, PERPLEXITY, ReportData
from services.evaluation.ports import ReportStore
from tailor.storage.buckets import REPORTS
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref

JSON, MARKDOWN, PLOT = "report.json", "report.md", "scores.png"
MODELS = (BASE, CANDIDATE, INCUMBENT)
COLOURS = {BASE: "#8a94a6", CANDIDATE: "#2f6fde", INCUMBENT: "#e0a030"}
ORDER = ("rouge1", "rouge2", "rougeL", "house_terms_f1", "bleu", PERPLEXITY)
EXAMPLES = 3


class ObjectReports(ReportStore):
    """Reports in object storage. report.json is written last, so a report that has it is complete."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def write(self, data: ReportData) -> Ref:
        folder = data.evaluation.evaluation_id
        self._store.put(REPORTS, f"{folder}/{PLOT}", plot(data.scores), "image/png")
        self._store.put(REPORTS, f"{folder}/{MARKDOWN}", as_markdown(data).encode(), "text/markdown")
        return self._store.put(REPORTS, f"{folder}/{JSON}", as_json(data), "application/json")

    def markdown(self, report: Ref) -> str:
        return self._read_part(report, MARKDOWN).decode()

    def plot(self, report: Ref) -> bytes:
        return self._read_part(report, PLOT)

    def quotes(self, evaluation_id: str, document_id: str) -> bool:
        if not self._store.exists(REPORTS, f"{evaluation_id}/{JSON}"):
            return True
        rows = json.loads(self._store.read(REPORTS, f"{evaluation_id}/{JSON}"))["rows"]
        return any(document_id in row["document_ids"] for row in rows)

    def delete(self, evaluation_id: str) -> int:
        names = [f"{evaluation_id}/{name}" for name in (PLOT, MARKDOWN, JSON)]
        keys = [key for key in names if self._store.exists(REPORTS, key)]
        for key in keys:
            self._store.delete(REPORTS, key)
        return len(keys)

    def _read_part(self, report: Ref, name: str) -> bytes:
        return self._store.read(report.bucket, report.key.removesuffix(JSON) + name)


def as_json(data: ReportData) -> bytes:
    """Scores, parameters, and every row with its answers and metrics."""
    evaluation, incumbent = data.evaluation, data.incumbent
    document = {
        "evaluation_id": evaluation.evaluation_id,
        "adapter_digest": evaluation.adapter.digest,
        "specialist": evaluation.adapter.specialist,
        "dataset_digest": evaluation.adapter.dataset_digest,
        "base": evaluation.adapter.base,
        "incumbent_digest": incumbent.adapter_digest if incumbent else "",
        "incumbent_generation": incumbent.generation if incumbent else 0,
        "parameters": {"temperature": 0, "max_tokens": data.parameters.max_tokens},
        "scores": data.scores,
        "rows": [_row(data, number) for number in range(len(data.rows))],
    }
    return json.dumps(document, indent=1, ensure_ascii=False).encode()


def _row(data: ReportData, number: int) -> dict[str, object]:
    row = data.rows[number]
    return {
        "row_id": row.row_id,
        "task": row.task,
        "document_ids": list(row.document_ids),
        "messages": [{"role": role, "content": content} for role, content in row.messages],
        "reference": row.reference,
        "answers": {name: result.answers[number] for name, result in data.results.items()},
        "metrics": {name: values[number] for name, values in data.row_metrics.items()},
    }


def as_markdown(data: ReportData) -> str:
    """A table of scores, the plot, and a few rows with the answers of all models."""
    evaluation, incumbent = data.evaluation, data.incumbent
    models = [name for name in MODELS if name in data.scores]
    served = (
        f"`{incumbent.adapter_digest or 'base'}` (generation {incumbent.generation})" if incumbent else "nothing yet"
    )
    lines = [
        f"# Evaluation of {evaluation.adapter.specialist}",
        "",
        f"Adapter `{evaluation.adapter.digest}`, dataset `{evaluation.adapter.dataset_digest}`, {len(data.rows)} "
        f"held-out rows, greedy, at most {data.parameters.max_tokens} tokens. Serving at the time: {served}.",
        "",
        f"| metric | {' | '.join(models)} |",
        f"|---|{'---:|' * len(models)}",
    ]
    for metric in _metrics(data.scores):
        lines.append(f"| {metric} | {' | '.join(f'{data.scores[name][metric]:.4f}' for name in models)} |")
    lines += [
        "",
        _parity(data),
        "",
        "Lower perplexity is better. For all other metrics, higher is better.",
        "",
        f"![scores]({PLOT})",
    ]
    for number in range(min(EXAMPLES, len(data.rows))):
        lines += ["", *_example(data, number, models)]
    return "\n".join(lines) + "\n"


def _parity(data: ReportData) -> str:
    parity = data.scores[CANDIDATE].get(PARITY)
    if parity is None:
        return "Parity with the trainer was not measured, because the adapter has no probe rows."
    return f"Parity: on the probe rows, the candidate differs from the trainer by at most {parity:.4f} nats per token."


def _example(data: ReportData, number: int, models: list[str]) -> list[str]:
    row = data.rows[number]
    parts = [("prompt", row.messages[-1][1]), ("reference", row.reference)]
    parts += [(name, data.results[name].answers[number]) for name in models]
    lines = [f"## Row {row.row_id}", ""]
    for name, text in parts:
        lines += [f"**{name}**", "", *(f"> {line}".rstrip() for line in text.split("\n")), ""]
    return lines[:-1]


def _metrics(scores: Mapping[str, Mapping[str, float]]) -> list[str]:
    return [metric for metric in ORDER if all(metric in values for values in scores.values())]


def plot(scores: Mapping[str, Mapping[str, float]]) -> bytes:
    """A bar chart (PNG) by metric and model. Shares, BLEU and perplexity have separate axes."""
    metrics = _metrics(scores)
    groups = [
        [m for m in metrics if m not in {"bleu", PERPLEXITY}],
        *([m] for m in ("bleu", PERPLEXITY) if m in metrics),
    ]
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots(1, len(groups), width_ratios=[max(1, len(group)) for group in groups], squeeze=False)[0]
    models = [name for name in MODELS if name in scores]
    for axis, group in zip(axes, groups, strict=True):
        for number, name in enumerate(models):
            places = [place + (number - (len(models) - 1) / 2) * 0.8 / len(models) for place in range(len(group))]
            bars = axis.bar(
                places, [scores[name][m] for m in group], 0.8 / len(models), color=COLOURS[name], label=name
            )
            axis.bar_label(bars, fmt="%.2f", fontsize=7)
        axis.set_xticks(range(len(group)), [f"{m} (lower is better)" if m == PERPLEXITY else m for m in group])
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()
