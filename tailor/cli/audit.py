"""`tailor audit`: the state of the documents before any training."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tailor.api.anonymization.v1 import replaced_pb2
from tailor.api.registry.v1 import audit_pb2, registry_pb2
from tailor.api.synthetic.v1 import synthetic_pb2, synthetic_pb2_grpc
from tailor.cli.datasets import SHARES
from tailor.cli.messages import describe_removed
from tailor.cli.output import FIGURE, bold, short
from tailor.cli.replaced_strings import name_of
from tailor.cli.session import CommandSession
from tailor.cli.tables import TableSection, item_table
from tailor.columns import Column, Columns, columns, number, word
from tailor.errors import FailedPrecondition, InvalidArgument, Reason, Unavailable
from tailor.list_columns import DECISIONS, REPLACED, describe_over_redaction

AUDIT_SECONDS = 60.0
# Operators' decisions that the audit shows.
MAX_DECISIONS = 20
# Strings that it shows.
MAX_REPLACED = 20
MAX_BARS = 15  # per plot
BAR_INCHES = 0.32
COLOUR = "#0f766e"
UNKNOWN = "unknown"
UNITS = ((86_400, "days"), (3_600, "hours"), (60, "minutes"))


def audit(
    session: CommandSession,
    specialist: Annotated[str, typer.Option(help="Count only documents that this specialist selects.")] = "",
    markdown: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Also write a Markdown report to this file, with PNG plots next to it."),
    ] = None,
) -> None:
    """Show the state of the documents before any training.

    Counts by source, department, format and language; duplicates and near-duplicates; lengths; personal data by type and density;
    rejections by reason; estimated tokens and training time; the datasets behind serving adapters and the newest ones, what they
    leave out, and what an evaluation found to be learned; what is replaced in many documents, and so is hardly personal; operators'
    newest decisions, such as overrides of the gate.
    """
    request = audit_pb2.GetAuditRequest(specialist=specialist)
    response = session.connections.registry.GetAudit(request, timeout=AUDIT_SECONDS)
    try:
        near = count_near_duplicates(session.connections.synthetic, specialist, session.output.notes)
    except Unavailable as error:
        session.output.note(f"near-duplicates are unknown: {error.message}")
        near = None
    replaced = _list_replaced(session)
    if markdown is not None:
        for path in write_report(markdown, specialist, response, near, replaced):
            session.output.note(f"wrote {path}")
    request_decisions = registry_pb2.ListDecisionsRequest(specialist=specialist, page_size=MAX_DECISIONS)
    decided = session.connections.registry.ListDecisions(request_decisions)
    document = {"audit": response, "near_duplicates": near, "replaced": replaced, "decisions": decided.decisions}
    older = "There are older ones: `tailor adapter decisions --limit N` lists them."
    session.output.emit(
        document,
        (bold(name, f" {value}") for name, value in facts(response, near)),
        (("", section.to_table()) for section in sections(response, replaced)),
        "",
        item_table("operators' decisions", DECISIONS, decided.decisions),
        older if decided.next_page_token else None,
    )


def count_near_duplicates(
    synthetic: synthetic_pb2_grpc.SyntheticServiceStub, specialist: str, notes: Console
) -> synthetic_pb2.CountNearDuplicatesResponse:
    """Call until every document is compared, or a call compares no more of them. Blocks."""
    request = synthetic_pb2.CountNearDuplicatesRequest(specialist=specialist)
    before = -1
    while True:
        response = synthetic.CountNearDuplicates(request, timeout=AUDIT_SECONDS)
        if response.compared in (response.documents, before):
            return response
        notes.print(f"comparing documents: {response.compared:,} of {response.documents:,}")
        before = response.compared


def _list_replaced(session: CommandSession) -> replaced_pb2.ListReplacedResponse | None:
    """The strings that are replaced most, in all documents; None if anonymization does not answer."""
    request = replaced_pb2.ListReplacedRequest(page_size=MAX_REPLACED)
    try:
        return session.connections.replaced.ListReplaced(request, timeout=AUDIT_SECONDS)
    except Unavailable as error:
        session.output.note(f"what is replaced most is unknown: {error.message}")
        return None


def write_report(
    path: Path,
    specialist: str,
    audit: audit_pb2.GetAuditResponse,
    near: synthetic_pb2.CountNearDuplicatesResponse | None,
    replaced: replaced_pb2.ListReplacedResponse | None,
) -> list[Path]:
    """Write the file and its plots, and return their paths.

    Raises FailedPrecondition if matplotlib is not installed, InvalidArgument if a file cannot be written.
    """
    written = []
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for name, title, unit, bars in plots(audit):
            image = path.with_name(f"{path.stem}-{name}.png")
            _draw(image, title, unit, bars)
            written.append(image)
        path.write_text(report(specialist, audit, near, replaced, [image.name for image in written]), encoding="utf-8")
    except OSError as error:
        raise InvalidArgument(Reason.CANNOT_WRITE, f"The report cannot be written: {error.strerror}.") from None
    return [path, *written]


def report(
    specialist: str,
    audit: audit_pb2.GetAuditResponse,
    near: synthetic_pb2.CountNearDuplicatesResponse | None,
    replaced: replaced_pb2.ListReplacedResponse | None,
    images: list[str],
) -> str:
    """The report as Markdown."""
    scope = f"Documents that `{specialist}` selects" if specialist else "All documents"
    lines = ["# Audit", "", f"{scope}, counted at {audit.create_time.ToJsonString()}.", ""]
    lines += [f"- **{name}**: {value}" for name, value in facts(audit, near)]
    for image in images:
        lines += ["", f"![{Path(image).stem}]({image})"]
    for section in sections(audit, replaced):
        lines += section.to_markdown(FIGURE, empty=["None."])
    return "\n".join(lines) + "\n"


def plots(audit: audit_pb2.GetAuditResponse) -> list[tuple[str, str, str, list[tuple[str, float]]]]:
    """Name, title, unit and bars of every plot that has bars."""
    result: list[tuple[str, str, str, list[tuple[str, float]]]] = []
    lengths = [(span(interval), float(interval.documents)) for interval in audit.lengths.histogram]
    result.append(("lengths", "Documents by characters", "documents", lengths))
    for dimension in audit.dimensions:
        name = dimension_name(dimension.field)
        groups = [(group.value or UNKNOWN, float(group.documents)) for group in dimension.groups]
        result.append((name, f"Documents by {name}", "documents", groups))
    density = [(finding.entity_type, finding.per_thousand_chars) for finding in audit.findings]
    result.append(("findings", "Personal data by type", "values per 1,000 characters", density))
    reasons: dict[str, float] = {}
    for rejection in audit.rejections:
        reasons[rejection.reason] = reasons.get(rejection.reason, 0.0) + rejection.submissions
    result.append(("rejections", "Rejected by reason", "submissions", list(reasons.items())))
    return [(name, title, unit, bars[:MAX_BARS]) for name, title, unit, bars in result if bars]


def _draw(path: Path, title: str, unit: str, bars: list[tuple[str, float]]) -> None:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise FailedPrecondition(
            Reason.NO_MATPLOTLIB, "Plots need matplotlib: pip install 'tailor-platform[plots]'."
        ) from None
    figure = Figure(figsize=(7.0, 1.1 + BAR_INCHES * len(bars)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    names = [name for name, _ in bars]
    axes.barh(range(len(bars)), [value for _, value in bars], color=COLOUR)
    axes.set_yticks(range(len(bars)), names)
    axes.invert_yaxis()
    axes.set_title(title, loc="left")
    axes.set_xlabel(unit)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def span(interval: audit_pb2.AuditBin) -> str:
    """An interval of lengths in characters."""
    return (
        f"{interval.from_chars:,} to {interval.below_chars - 1:,}"
        if interval.below_chars
        else f"{interval.from_chars:,} or more"
    )


def _share_of(name: str) -> Column:
    return number(name, lambda item: 100 * getattr(item.figures, name), "{:.1f} %")


LENGTHS = columns(None, ("characters", span), "documents|{:,}")
PERCENTILES = columns(None, "share=0|{} %, characters=1|{:,.0f}")
FINDINGS = columns(
    audit_pb2.AuditFinding,
    "type=entity_type, values|{:,}, documents|{:,}",
    ("per 1,000 characters", lambda item: f"{item.per_thousand_chars:.3f}"),
)
IMPORTS = columns(
    audit_pb2.AuditImport, "specialist, import=name, licence, share=share_percent|{} %, source, rows|{:,}"
)
REJECTED = columns(audit_pb2.AuditRejection, "reason, format=format or 'unknown', stopped by=stage, submissions|{:,}")
DATASETS = columns(
    audit_pb2.AuditDataset,
    "specialist, adapter=adapter_digest, dataset=dataset_digest, documents|{:,}",
    *map(_share_of, SHARES),
    ("over-redaction", lambda item: describe_over_redaction(item.figures)),
)
SKIPPED = columns(
    None,
    ("reason", lambda row: f"{row[0].specialist} {short(row[0].dataset_digest)}: {row[1].reason.replace('_', ' ')}"),
    "documents=1.documents|{:,}, rows=1.rows|{:,}, characters=1.characters|{:,}",
)


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
) -> list[TableSection]:
    """The tables, in reading order."""
    skipped = [(item, reason) for item in audit.datasets for reason in item.skipped]
    return [
        *(_dimension(dimension, audit.totals) for dimension in audit.dimensions),
        TableSection("Documents shorter than", PERCENTILES, sorted(audit.lengths.percentiles.items())),
        TableSection("Lengths", LENGTHS, audit.lengths.histogram),
        TableSection("Personal data", FINDINGS, audit.findings),
        *([_replaced(replaced)] if replaced is not None else ()),
        *([TableSection("Imports in the newest datasets", IMPORTS, audit.imports)] if audit.imports else ()),
        TableSection("Rejected", REJECTED, audit.rejections),
        TableSection("Datasets behind serving adapters, and newest ones", DATASETS, audit.datasets),
        TableSection("Left out of these datasets", SKIPPED, skipped),
    ]


def dimension_name(field: audit_pb2.AuditField.ValueType) -> str:
    """The name of the field that documents are grouped by, such as `source`."""
    return word(audit_pb2.AuditField.DESCRIPTOR, field)


def duration(seconds: float) -> str:
    """The duration in the largest unit that fits at least twice."""
    for size, unit in UNITS:
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:,.0f} seconds"


def _replaced(replaced: replaced_pb2.ListReplacedResponse) -> TableSection:
    shown = Columns((*columns(None, ("string by its surrogate", name_of)), *REPLACED[2:]))
    many = f"{replaced.min_documents} documents or more of all {replaced.documents:,}"
    return TableSection(f"Replaced most, in {many}: hardly personal", shown, replaced.strings)


def _dimension(dimension: audit_pb2.AuditDimension, totals: audit_pb2.AuditTotals) -> TableSection:
    name = dimension_name(dimension.field)
    groups = list(dimension.groups)
    if dimension.more_values:
        rest = {
            field: getattr(totals, field) - sum(getattr(group, field) for group in groups)
            for field in ("documents", "characters")
        }
        groups.append(audit_pb2.AuditGroup(value=f"{dimension.more_values:,} others", **rest))

    def unless_others(text: Callable[[audit_pb2.AuditGroup], str]) -> Callable[[audit_pb2.AuditGroup], str]:
        return lambda group: "" if dimension.more_values and group is groups[-1] else text(group)

    shown = columns(
        audit_pb2.AuditGroup,
        f"{name}=value or '{UNKNOWN}', documents|{{:,}}",
        ("share", lambda group: f"{100 * group.documents / totals.documents if totals.documents else 0:.1f} %"),
        "characters|{:,}",
        ("personal values per 1,000", unless_others(_describe_density)),
        ("new since the last build", unless_others(lambda group: f"{group.new_documents:,}")),
    )
    return TableSection(f"By {name}", shown, groups)


def _describe_density(group: audit_pb2.AuditGroup) -> str:
    return f"{1000 * group.findings / group.characters if group.characters else 0:.2f}"


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
