"""How `tailor review` shows passages and estimates."""

from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from tailor.api.anonymization.v1 import review_pb2 as pb
from tailor.cli.output import table

STYLES = {pb.STRETCH_KIND_REPLACED: "dim", pb.STRETCH_KIND_DISAGREEMENT: "bold underline"}


def render_passage(console: Console, answer: pb.NextPassageResponse) -> None:
    """The passage with its context in italics."""
    waiting = answer.waiting
    if not answer.HasField("passage"):
        console.print("Nothing waits. Draw a sample with `tailor review sample`.")
        return
    passage = answer.passage
    labels = ", ".join(filter(None, (passage.source, passage.language)))
    console.print(f"{passage.passage_id}  {passage.document_id} {labels}, characters {passage.start} to {passage.end}")
    if not passage.replaced_known:
        console.print("This document has a newer version: the surrogates of this one are not dimmed.")
    text = Text(passage.text)
    text.stylize("italic dim", 0, passage.start)
    text.stylize("italic dim", passage.end)
    for stretch in passage.stretches:
        text.stylize(STYLES.get(stretch.kind, ""), stretch.start, stretch.end)
    console.print(text)
    console.print(f"Types: {', '.join(passage.entity_types)}", soft_wrap=True)
    console.print(f"{waiting.sample} passages of the sample and {waiting.disagreement} disagreements wait.")


def render_report(console: Console, report: pb.GetResidualReportResponse) -> None:
    """The estimates, the limit, and what is not known."""
    if not report.HasField("sample"):
        console.print("No sample was drawn yet: nobody knows what is left. Draw one with `tailor review sample`.")
    else:
        console.print(
            f"{describe_estimate(report.overall)}. Sample {report.sample.sample_id}, seed {report.sample.seed}."
        )
        if report.sample.passages_now > report.overall.passages:
            more = report.sample.passages_now - report.overall.passages
            console.print(f"{more:,} passages arrived since the sample was drawn; it says nothing about them.")
        columns = ("source", "language", "passages", "reviewed", "left", "share", "by type")
        console.print(table("", columns, _rows(report)))
    if report.HasField("limit"):
        console.print("The limit is met." if report.limit.met else f"Nothing trains: {report.limit.message}")
    if report.rules_only_documents:
        counts = ", ".join(f"{count} in {name}" for name, count in sorted(report.rules_only_documents.items()))
        console.print(f"Documents with passages that no detector covers, masked by rules only: {counts}.")
    console.print(
        f"{report.waiting.sample} passages of the sample and {report.waiting.disagreement} disagreements wait."
    )
    console.print(
        f"{report.rare_combinations} rare combinations of quasi-identifiers; see `tailor review combinations`."
    )


def describe_estimate(estimate: pb.ResidualEstimate) -> str:
    """`20 of 400 left: 5.0 % [3.1, 7.6]`."""
    if not estimate.HasField("any"):
        return f"None of {estimate.drawn} sampled passages was reviewed"
    return f"{estimate.any.left} of {estimate.reviewed} left: {describe_share(estimate.any)}"


def describe_share(share: pb.ResidualShare) -> str:
    """`5.0 % [3.1, 7.6]`."""
    return f"{100 * share.share:.1f} % [{100 * share.low:.1f}, {100 * share.high:.1f}]"


def _rows(report: pb.GetResidualReportResponse) -> Iterator[tuple[object, ...]]:
    yield ("all", "", *_figures(report.overall))
    for item in report.strata:
        yield (item.source or "-", item.language or "-", *_figures(item))


def _figures(item: pb.ResidualEstimate) -> tuple[object, ...]:
    is_known = item.HasField("any")
    return (
        f"{item.passages:,}",
        f"{item.reviewed} of {item.drawn}",
        item.any.left if is_known else "-",
        describe_share(item.any) if is_known else "-",
        ", ".join(f"{kind} {describe_share(share)}" for kind, share in sorted(item.types.items())),
    )
