"""The columns of what the command line and the console both list."""

import math

from tailor.api.anonymization.v1.anonymization_pb2 import PreviewAnonymizationResponse
from tailor.api.anonymization.v1.replaced_pb2 import ReplacedString
from tailor.api.anonymization.v1.review_pb2 import RareCombination
from tailor.api.common.v1.common_pb2 import Labels
from tailor.api.events.v1.documents_pb2 import DocumentAnonymized
from tailor.api.events.v1.models_pb2 import DatasetBuilt, DatasetFigures, Estimate, ModelCost
from tailor.api.registry.v1.people_pb2 import Person
from tailor.api.registry.v1.registry_pb2 import (
    CatalogueAdapter,
    CatalogueDocument,
    Erasure,
    GetSpecialistResponse,
    Key,
    LeaderboardEntry,
    OperatorDecision,
)
from tailor.api.synthetic.v1.synthesis_pb2 import Synthesis
from tailor.api.training.v1.training_pb2 import Base, Run
from tailor.columns import Column, Columns, Digest, columns, number, read
from tailor.pipelines import PipelineStage, describe_pipeline
from tailor.wire import to_pipeline


def join_labels(labels: Labels) -> str:
    """The labels as one text."""
    return " ".join(filter(None, (labels.source, labels.department, labels.confidentiality)))


def describe_serving(item: GetSpecialistResponse) -> str:
    """The adapter that serves, `the base`, or `nothing yet`."""
    decision = item.serving.decision
    if not decision.generation or decision.ended:
        return "nothing yet"
    return Digest(decision.adapter_digest) if decision.adapter_digest else "the base"


def describe_estimate(estimate: Estimate, sign: str = "") -> str:
    """A value with its interval."""
    if not math.isfinite(estimate.high - estimate.low):
        return "not known" if math.isnan(estimate.value) else f"{estimate.value:{sign}.3f} (no interval)"
    return f"{estimate.value:{sign}.3f} ({estimate.low:{sign}.3f} to {estimate.high:{sign}.3f})"


def describe_price(cost: ModelCost) -> str:
    """The price of 1,000 answers with its currency; empty without one."""
    return f"{cost.price_per_1000:.2f} {cost.currency}" if cost.HasField("price_per_1000") else ""


def describe_over_redaction(figures: DatasetFigures) -> str:
    """The figure per 1,000 words, with the limit if it is over it; `unknown` if it was not measured."""
    limit = figures.max_over_redaction
    text = f"{figures.over_redaction:.2f}" + (f" (limit {limit:g})" if figures.over_redaction > limit else "")
    return text if limit else "unknown"


def describe_rules_only(result: DocumentAnonymized | PreviewAnonymizationResponse) -> str:
    """The languages of a text that no detector covers, with what that means; empty if there are none."""
    languages = ", ".join(result.rules_only_languages)
    return f"masked by rules only: {languages}" if languages else ""


def _state_of_document(item: CatalogueDocument) -> str:
    if item.HasField("rejected"):
        return f"rejected: {read(item, 'rejected.reason')}. {item.rejected.hint}"
    return "; ".join(filter(None, ("anonymised", describe_rules_only(item.anonymized))))


def _count_findings(item: CatalogueDocument) -> int:
    return sum(item.anonymized.findings.values())


def _describe_findings(item: CatalogueDocument) -> object:
    return "" if item.HasField("rejected") else _count_findings(item)


def _describe_losses(item: CatalogueAdapter) -> str:
    return f"{item.adapter.first_loss:.2f} to {item.adapter.last_loss:.2f}"


def _place_of(item: CatalogueAdapter) -> str:
    place = f"on {item.serving_replicas} of {item.ready_replicas}" if item.serving else ""
    place = f"{item.canary_percent} % of the callers" if item.canary_percent else place
    return place + (" tainted" if item.tainted else "")


def _documents_of(item: CatalogueAdapter) -> Digest:
    adapter = item.adapter
    return Digest(adapter.sft_dataset_digest or ("" if adapter.preference_dataset_digest else adapter.dataset_digest))


DOCUMENTS = columns(
    CatalogueDocument,
    "document=anonymized.document_id or rejected.document_id, version=anonymized.version.sequence, kind=anonymized.kind",
    "format=anonymized.format or rejected.format, characters=anonymized.char_count",
    "source=anonymized.labels.source or rejected.labels.source",
    Column("personal values", _describe_findings, "personal_values", is_number=True),
    ("state", _state_of_document),
    ("labels", lambda item: join_labels((item.rejected if item.HasField("rejected") else item.anonymized).labels)),
    "language=anonymized.language, time=anonymized.create_time or rejected.create_time",
    "reason=rejected.reason, rejected by=rejected.stage",
)
DATASETS = columns(
    DatasetBuilt,
    "dataset=digest, specialist, kind, rows=train_rows, held out=held_out_rows, documents",
    "coverage=figures.coverage|{:.1%}, grounded=figures.grounded|{:.1%}, overlap=figures.overlap|{:.1%}",
    ("over-redaction", lambda item: describe_over_redaction(item.figures) if item.HasField("figures") else ""),
    "built=create_time, base",
    ("pipeline", lambda item: describe_pipeline([PipelineStage(stage.stage, stage.recipe) for stage in item.pipeline])),
)
RUNS = columns(
    Run,
    "run=run_id, specialist, dataset=dataset_digest, recipe, state, adapter=adapter_digest, loss=progress.loss|{:.3f}",
    "tokens/s=progress.tokens_per_second|{:.0f}, queued=create_time",
    Column("base and recipe", lambda item: f"{item.base} {item.recipe}", "base"),
)
ADAPTERS = columns(
    CatalogueAdapter,
    "adapter=adapter.digest, specialist=adapter.specialist",
    ("documents", _documents_of),
    "rankings=adapter.preference_dataset_digest, round=adapter.round or ''",
    Column("loss", _describe_losses, "last_loss", is_number=True),
    "state",
    ("serves", _place_of),
    "kind=adapter.kind, duration=adapter.seconds|{:.0f} s, created=adapter.create_time",
)
DECISIONS = columns(
    OperatorDecision,
    "time=create_time, decision=kind, specialist, adapter=adapter_digest",
    ("verdict", lambda item: read(item, "verdict") if item.verdict else ""),
    "key=key_id or 'the console's operator', reason",
)
SPECIALISTS = columns(
    GetSpecialistResponse,
    "name=specialist.name, base=specialist.base",
    ("pipeline", lambda item: describe_pipeline(to_pipeline(item.specialist))),
    ("serves", describe_serving),
    "generation=serving.decision.generation, changed=specialist.update_time",
)
SYNTHESES = columns(
    Synthesis,
    "synthesis=synthesis_id, specialist=spec.specialist, task=spec.task, state, accepted, waiting=pending",
    number("refused", lambda item: sum(part.rows for part in item.refusals)),
    number("tokens", lambda item: item.use.tokens + item.use.lost_tokens),
    "target=spec.target, cost=use.eur|{:.4f} EUR, created=create_time",
)
ERASURES = columns(
    Erasure,
    "erasure=erasure_id",
    number("documents", lambda item: len(item.document_ids)),
    ("lifted", lambda item: len(item.lifted_document_ids) or ""),
    "reason, requested=create_time",
    (
        "state",
        lambda item: "receipt signed" if item.HasField("receipt") else f"waiting for {read(item, 'waiting_for')}",
    ),
)
COMBINATIONS = columns(
    RareCombination, "document=document_id, types=entity_types, documents that share it=documents, passage=number"
)
REPLACED = columns(
    ReplacedString,
    "type=entity_type, surrogate, times, documents, departments, sources",
    Column(
        "decided", lambda item: f"{read(item, 'decision')} by {item.decided_by}" if item.decided_by else "", "decision"
    ),
)
KEYS = columns(
    Key,
    "key=key_id, name, role, specialists=specialists or 'all'",
    ("methods", lambda key: ", ".join(method.rpartition(".")[2] for method in key.methods) or "all"),
    "calls per minute=calls_per_minute or 'no limit'",
    ("state", lambda key: "revoked" if key.revoked else ""),
    "expires=expire_time or 'never', created by=created_by or 'unknown', created=create_time",
)
BASES = columns(
    Base,
    "base=name",
    number("parameters", lambda base: base.parameters / 1e6, "{:.0f} M"),
    number("size", lambda base: base.size_bytes / 1e6, "{:.0f} MB"),
    "quantisation",
    ("rows", lambda base: "packed" if base.capabilities.packed else "one by one"),
    "attention=capabilities.attention, end of an answer=capabilities.chat.end",
    ("thinks", lambda base: "yes" if base.capabilities.chat.thought_end else ""),
    "adapted layers=capabilities.targets, not adapted=capabilities.left_out, largest rank=capabilities.max_rank",
    "adapters are served=capabilities.not_served_because or 'yes'",
    "licence, digest",
)
PEOPLE = columns(
    Person,
    "person=person_id, name, mail, role, specialists=specialists or 'all', state, invited by",
    "invitation expires=invitation_expire_time, invited=create_time",
)


def list_leaderboard(metric: str) -> Columns:
    """The columns of a ranking by a metric."""

    def describe_score(item: LeaderboardEntry) -> str:
        return describe_estimate(item.scores[metric]) if metric in item.scores else "not measured"

    def describe_gain(item: LeaderboardEntry) -> str:
        return describe_estimate(item.gains[metric], "+") if metric in item.gains else ""

    return columns(
        LeaderboardEntry,
        ("", lambda item: "pinned" if item.pinned else ""),
        "rank=rank or '-', model=adapter_digest or model",
        ("state", lambda item: read(item, "state") if item.state else ""),
        Column(metric, describe_score, "score", is_number=True),
        Column("gain over base", describe_gain, "gain", is_number=True),
        "median=cost.median_seconds|{:.2f} s",
        Column("per 1,000", lambda item: describe_price(item.cost), "price_per_1000", is_number=True),
        "rows, dataset=dataset_digest",
    )
