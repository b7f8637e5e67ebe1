"""An audit as facts and tables; the terminal and the report show the same ones."""

from collections.abc import Sequence
from dataclasses import dataclass

from tailor.api.anonymization.v1 import replaced_pb2
from tailor.api.registry.v1 import audit_pb2
from tailor.api.synthetic.v1 import synthetic_pb2
from tailor.cli.columns import ShownField, cells, headings
from tailor.cli.datasets import SHARES, over_redaction
from tailor.cli.messages import describe_removed, short_enum
from tailor.cli.output import short
from tailor.cli.replaced_strings import COLUMNS, name_of

UNKNOWN = "unknown"
SKIPPED = ("documents", "rows", "characters")
KNOWLEDGE = ("documents", "asked", "learned", "missed", "contradicted")
UNITS = ((86_400, "days"), (3_600, "hours"), (60, "minutes"))


@dataclass(frozen=True)
class AuditTable:
    """A table. The first column holds names, the others figures."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def facts(
    audit: audit_pb2.GetAuditResponse, near: synthetic_pb2.CountNearDuplicatesResponse | None
) -> list[tuple[str, str]]:
    """The single figures, each with its name."""
    totals, lengths = audit.totals, audit.lengths
    density = 1000 * totals.findings / totals.characters if totals.characters else 0.0
    rejected = sum(rejection.submissions for rejection in audit.rejections)
    return [
        ("Documents", f"{totals.documents:,}, {totals.characters:,} characters"),
        ("Personal values", f"{totals.findings:,} found and replaced, {density:.2f} per 1,000 characters"),
        ("Left out of files", describe_removed(totals.removed)),
        ("Duplicates", f"{audit.duplicates:,} submissions rejected because the text was already current"),
        ("Near-duplicates", _near(near)),
        ("Lengths", f"{lengths.min_chars:,} to {lengths.max_chars:,} characters, {lengths.mean_chars:,.0f} on average"),
        ("Rejected", f"{rejected:,} submissions"),
        ("Tokens", f"about {audit.estimate.tokens:,} (characters divided by four)"),
        ("Training", _training(audit.estimate)),
    ]


def sections(
    audit: audit_pb2.GetAuditResponse, replaced: replaced_pb2.ListReplacedResponse | None = None
) -> list[AuditTable]:
    """The tables, in reading order."""
    tables = [_dimension(dimension, audit.totals) for dimension in audit.dimensions]
    percentiles = tuple(
        (f"{percent} %", f"{value:,.0f}") for percent, value in sorted(audit.lengths.percentiles.items())
    )
    tables.append(AuditTable("Documents shorter than", ("share", "characters"), percentiles))
    bins = tuple((span(interval), f"{interval.documents:,}") for interval in audit.lengths.histogram)
    tables.append(AuditTable("Lengths", ("characters", "documents"), bins))
    findings = tuple(
        (item.entity_type, f"{item.values:,}", f"{item.documents:,}", f"{item.per_thousand_chars:.3f}")
        for item in audit.findings
    )
    tables.append(AuditTable("Personal data", ("type", "values", "documents", "per 1,000 characters"), findings))
    if replaced is not None:
        tables.append(_replaced(replaced))
    rejected = tuple(
        (item.reason, item.format or UNKNOWN, item.stage, f"{item.submissions:,}") for item in audit.rejections
    )
    imports = tuple(
        (item.specialist, item.name, item.licence, f"{item.share_percent} %", item.source, f"{item.rows:,}")
        for item in audit.imports
    )
    if imports:
        columns = ("specialist", "import", "licence", "share", "source", "rows")
        tables.append(AuditTable("Imports in the newest datasets", columns, imports))
    tables.append(AuditTable("Rejected", ("reason", "format", "stopped by", "submissions"), rejected))
    return [*tables, _datasets(audit), _skipped(audit), _knowledge(audit)]


def dimension_name(field: audit_pb2.AuditField.ValueType) -> str:
    """The name of the field that documents are grouped by, such as `source`."""
    return short_enum(audit_pb2.AuditField, field, "AUDIT_FIELD_")


def span(interval: audit_pb2.AuditBin) -> str:
    """An interval of lengths in characters."""
    return (
        f"{interval.from_chars:,} to {interval.below_chars - 1:,}"
        if interval.below_chars
        else f"{interval.from_chars:,} or more"
    )


def duration(seconds: float) -> str:
    """The duration in the largest unit that fits at least twice."""
    for size, unit in UNITS:
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:,.0f} seconds"


def _replaced(replaced: replaced_pb2.ListReplacedResponse) -> AuditTable:
    shown = (ShownField("string by its surrogate", name_of), *COLUMNS[2:])
    title = (
        f"Replaced most, in {replaced.min_documents} documents or more of all {replaced.documents:,}: hardly personal"
    )
    return AuditTable(title, headings(shown), cells(shown, replaced.strings))


def _datasets(audit: audit_pb2.GetAuditResponse) -> AuditTable:
    rows = tuple(
        (
            item.specialist,
            short(item.adapter_digest),
            short(item.dataset_digest),
            f"{item.documents:,}",
            *(f"{100 * getattr(item.figures, name):.1f} %" for name in SHARES),
            over_redaction(item.figures),
            f"{item.closed_book_questions:,}",
        )
        for item in audit.datasets
    )
    columns = ("specialist", "adapter", "dataset", "documents", *SHARES, "over-redaction", "closed-book questions")
    return AuditTable("Datasets behind serving adapters, and newest ones", columns, rows)


def _skipped(audit: audit_pb2.GetAuditResponse) -> AuditTable:
    rows = tuple(
        (
            f"{item.specialist} {short(item.dataset_digest)}: {reason.reason.replace('_', ' ')}",
            *(f"{getattr(reason, name):,}" for name in SKIPPED),
        )
        for item in audit.datasets
        for reason in item.skipped
    )
    return AuditTable("Left out of these datasets", ("reason", *SKIPPED), rows)


def _knowledge(audit: audit_pb2.GetAuditResponse) -> AuditTable:
    rows = tuple(
        (item.specialist, *(f"{getattr(item.knowledge, name):,}" for name in KNOWLEDGE))
        for item in audit.datasets
        if item.knowledge.asked
    )
    return AuditTable("Known of their documents", ("specialist", *KNOWLEDGE), rows)


def _dimension(dimension: audit_pb2.AuditDimension, totals: audit_pb2.AuditTotals) -> AuditTable:
    name = dimension_name(dimension.field)
    rows = [
        (
            group.value or UNKNOWN,
            f"{group.documents:,}",
            _share(group.documents, totals.documents),
            f"{group.characters:,}",
            f"{1000 * group.findings / group.characters if group.characters else 0:.2f}",
            f"{group.new_documents:,}",
        )
        for group in dimension.groups
    ]
    if dimension.more_values:
        rest: Sequence[int] = [
            totals.documents - sum(group.documents for group in dimension.groups),
            totals.characters - sum(group.characters for group in dimension.groups),
        ]
        rows.append(
            (
                f"{dimension.more_values:,} others",
                f"{rest[0]:,}",
                _share(rest[0], totals.documents),
                f"{rest[1]:,}",
                "",
                "",
            )
        )
    columns = (name, "documents", "share", "characters", "personal values per 1,000", "new since the last build")
    return AuditTable(f"By {name}", columns, tuple(rows))


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole if whole else 0:.1f} %"


def _near(near: synthetic_pb2.CountNearDuplicatesResponse | None) -> str:
    if near is None:
        return UNKNOWN
    text = f"{near.near_duplicates:,} documents in {near.groups:,} groups (similarity {near.threshold:g} or more)"
    if near.compared < near.documents:
        text += f"; {near.compared:,} of {near.documents:,} documents compared so far"
    return text


def _training(estimate: audit_pb2.AuditEstimate) -> str:
    basis = "an assumption until a run has reported its speed"
    if estimate.run_id:
        alike = f"the median of {estimate.runs} runs like" if estimate.runs > 1 else "the speed of run"
        basis = f"{alike} {estimate.run_id}"
    return f"{duration(estimate.seconds)} for one pass at {estimate.tokens_per_second:,.0f} tokens/s, {basis}"
