"""The figures that `demo.json` holds."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from tailor.api.events.v1 import documents_pb2, models_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.cli.figures import decision_of, list_cut_answers
from tailor.cli.messages import to_dict
from tailor.codec import decode
from tailor.values import EvaluationPolicy
from tailor.wire import enum_name

Figures = dict[str, Any]

CANDIDATE = "candidate"


def count_outcomes(events: Iterable[Any], published: int, unchanged: int = 0) -> Figures:
    """Count anonymised documents, rejections by reason, and personal values by type, the most frequent first."""
    anonymized, rejected, findings = 0, Counter[str](), Counter[str]()
    for event in events:
        if isinstance(event, documents_pb2.DocumentAnonymized):
            anonymized += 1
            findings.update(dict(event.findings))
        else:
            rejected[enum_name(documents_pb2.RejectionReason, event.reason, "REJECTION_REASON_")] += 1
    return {
        "documents_published": published,
        "documents_unchanged": unchanged,
        "documents_anonymized": anonymized,
        "documents_rejected": dict(rejected.most_common()),
        "personal_data_found": dict(findings.most_common()),
    }


def describe_outcomes(figures: Figures) -> str:
    """The documents' figures in one line."""
    unchanged = figures["documents_unchanged"]
    if unchanged and not figures["documents_published"]:
        return f"nothing is published again: all {unchanged} documents are unchanged since an earlier demo"
    text = f"{figures['documents_published']} published, {figures['documents_anonymized']} anonymised"
    for label, name in (("rejected", "documents_rejected"), ("found", "personal_data_found")):
        counts = ", ".join(f"{key} {count}" for key, count in figures[name].items())
        text += f"; {label} {counts}" if counts else ""
    return f"{text}; {unchanged} unchanged since an earlier demo, not published again" if unchanged else text


def list_news(figures: Figures, adapter: models_pb2.AdapterTrained, started: Timestamp, *, is_built: bool) -> list[str]:
    """What this demo made that an earlier one had not."""
    documents = figures["documents_published"]
    news = [f"{documents} documents"] if documents else []
    news += ["the dataset"] if is_built else []
    return [*news, "the adapter"] if adapter.create_time.ToNanoseconds() >= started.ToNanoseconds() else news


def model_figures(
    dataset: models_pb2.DatasetBuilt, item: registry_pb2.CatalogueAdapter, definition: models_pb2.SpecialistChanged
) -> Figures:
    """The dataset, the run (losses in nats per token), and the evaluation with its limits and the gate's verdict.

    `promoted` is True if the adapter passed the gate, or serves by an operator's decision.
    """
    adapter = item.adapter
    measured = ("seconds", "steps", "first_loss", "last_loss", "tokens_per_second")
    return {
        "dataset": {"digest": dataset.digest, "rows": dataset.train_rows, "held_out": dataset.held_out_rows},
        "run": {"id": adapter.run_id} | {name: getattr(adapter, name) for name in measured},
        "adapter": {"digest": adapter.digest},
        "evaluation": to_dict(item.evaluation),
        "limits": list(describe_limits(definition, item.evaluation)),
        "verdict": {"decision": decision_of(item.decision), "reasons": list(item.reasons)},
        "promoted": item.decision == registry_pb2.DECISION_PASSED or item.serving,
        "answers": [],
    }


def describe_limits(definition: models_pb2.SpecialistChanged, evaluation: models_pb2.AdapterEvaluated) -> Iterator[str]:
    """What the definition's `[evaluation]` leaves out, a line each."""
    policy = decode(EvaluationPolicy, definition.evaluation)
    if evaluation.rows < evaluation.held_out_rows:
        yield f"{evaluation.rows} of {evaluation.held_out_rows} held-out rows are measured (max_rows)"
    answers = max((cost.answers for cost in evaluation.costs if cost.model == CANDIDATE), default=evaluation.rows)
    if answers < evaluation.rows:
        yield (
            f"{answers} of {evaluation.rows} rows are answered (max_answers), so metrics of answers have wide intervals; "
            "all rows score their reference"
        )
    if policy.few_shot != type(policy)().few_shot:
        yield f"few_shot has {policy.few_shot} of the usual {type(policy)().few_shot} house examples in its prompt (few_shot)"
    if policy.max_suite_items:
        yield f"each suite asks at most {policy.max_suite_items} items (max_suite_items)"
    if definition.sampling.max_tokens:
        cut = list_cut_answers(evaluation)
        yield f"answers are cut at {definition.sampling.max_tokens} tokens (sampling.max_tokens){f': {cut}' if cut else ''}"


def save(path: Path, figures: Figures) -> None:
    """Write the figures as JSON, atomically."""
    partial = path.with_name(f".{path.name}.part")
    partial.write_text(json.dumps(figures, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)
