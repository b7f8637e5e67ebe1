"""An audit as a Markdown file, with plots next to it."""

from collections.abc import Iterator
from pathlib import Path

from tailor.api.anonymization.v1 import replaced_pb2
from tailor.api.registry.v1 import audit_pb2
from tailor.api.synthetic.v1 import synthetic_pb2
from tailor.cli.audit_tables import UNKNOWN, AuditTable, dimension_name, facts, sections, span
from tailor.cli.markdown import FIGURE, list_table_lines
from tailor.errors import FailedPrecondition, InvalidArgument, Reason

MAX_BARS = 15  # per plot
BAR_INCHES = 0.32
COLOUR = "#0f766e"


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
        lines += ["", f"## {section.title}", "", *_describe(section)]
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


def _describe(section: AuditTable) -> Iterator[str]:
    return list_table_lines(section.columns, section.rows, FIGURE) if section.rows else iter(["None."])
