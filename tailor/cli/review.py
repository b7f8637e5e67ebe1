"""`tailor review`: what the barrier left, by people who look at passages, and how much that is."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from tailor.api.anonymization.v1 import review_pb2 as pb
from tailor.cli import ids
from tailor.cli.options import Limit, listed
from tailor.cli.session import CommandSession
from tailor.cli.tables import emit_pages, item_table
from tailor.columns import columns
from tailor.errors import FailedPrecondition, InvalidArgument, Reason
from tailor.list_columns import COMBINATIONS

DRAW_SECONDS = 300.0
MARK = re.compile(r"(\d+):(\d+):([A-Z][A-Z0-9_]*)?")
STYLES = {pb.STRETCH_KIND_REPLACED: "dim", pb.STRETCH_KIND_DISAGREEMENT: "bold underline"}
KINDS = {
    "": pb.PASSAGE_KIND_UNSPECIFIED,
    "sample": pb.PASSAGE_KIND_SAMPLE,
    "disagreement": pb.PASSAGE_KIND_DISAGREEMENT,
}

PassageId = Annotated[
    str,
    typer.Argument(
        metavar="PASSAGE",
        help="The passage's id, or its first digits; see `tailor review next`.",
        callback=ids.passage_id,
    ),
]
Sources = Annotated[list[str], typer.Option("--source", help="Only this source; repeatable. By default, all.")]


def sample(
    session: CommandSession,
    *,
    size: Annotated[int, typer.Option(min=1, max=5_000, help="Passages to draw.")] = 400,
    min_per_stratum: Annotated[
        int, typer.Option(min=0, max=5_000, help="Passages to draw of every source and language at least.")
    ] = 30,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draw; at random if 0.")] = 0,
    replace: Annotated[bool, typer.Option("--replace", help="Give up the passages that still wait.")] = False,
) -> None:
    """Draw a random sample of passages for review. Needs the role data-protection. The estimate starts again."""
    request = pb.DrawSampleRequest(size=size, min_per_stratum=min_per_stratum, seed=seed, replace=replace)
    answer = session.connections.review.DrawSample(request, timeout=DRAW_SECONDS)
    text = f"{answer.drawn} of {answer.passages:,} passages of {answer.documents:,} documents wait for review, "
    text += "at /review or with `tailor review next`."
    session.output.emit(answer, text)


def next_(
    session: CommandSession,
    kind: Annotated[str, typer.Option(help="`sample` or `disagreement`; by default, the sample first.")] = "",
) -> None:
    """Show the next passage, and reserve it for you for ten minutes. Surrogates are dimmed; what detectors disagree about is underlined."""
    if kind not in KINDS:
        raise InvalidArgument(Reason.INVALID_ARGUMENT, "--kind must be sample or disagreement.")
    answer = session.connections.review.NextPassage(pb.NextPassageRequest(kind=KINDS[kind]))
    session.output.emit(answer, describe_passage(answer))


def decide(
    session: CommandSession,
    passage: PassageId,
    *,
    mark: Annotated[
        list[str],
        typer.Option(
            metavar="START:END:TYPE",
            help="A value that was left, by its offsets; without a type, it is not personal. Repeatable.",
        ),
    ] = [],  # noqa: B006
    clean: Annotated[bool, typer.Option("--clean", help="Nothing was left.")] = False,
    skip: Annotated[bool, typer.Option("--skip", help="Put it at the end of the queue.")] = False,
) -> None:
    """Record what a passage still contains. Marked texts are personal in every document that passes from then on."""
    if sum((bool(mark), clean, skip)) != 1:
        raise InvalidArgument(Reason.NOTHING_NAMED, "Give exactly one of --mark, --clean and --skip.")
    request = pb.DecidePassageRequest(passage_id=passage, marks=map(read_mark, mark), skip=skip)
    session.connections.review.DecidePassage(request)
    session.output.emit({"passage_id": passage}, "Skipped." if skip else "Recorded.")


def undo(session: CommandSession) -> None:
    """Take back your last decision."""
    answer = session.connections.review.UndoDecision(pb.UndoDecisionRequest())
    session.output.emit(answer, f"{answer.passage_id} waits again.")


def drop(
    session: CommandSession,
    term: Annotated[str, typer.Argument(help="The text as it was marked. It is sent only to anonymization.")],
) -> None:
    """Forget what reviews decided about a text: it is then neither always personal nor never."""
    session.connections.review.DropTerm(pb.DropTermRequest(term=term))
    session.output.emit({"dropped": True}, "Dropped, for documents that pass from now on.")


def report(session: CommandSession, source: Sources = []) -> None:  # noqa: B006
    """Show the share of passages in which something was left, with its 95 % interval: overall, by source and language, by type."""
    answer = session.connections.review.GetResidualReport(pb.GetResidualReportRequest(sources=source))
    session.output.emit(answer, describe_report(answer))


@listed
def combinations(session: CommandSession, request: pb.ListRareCombinationsRequest, limit: Limit = 50) -> None:
    """List combinations of quasi-identifiers that fewer than five documents share, rarest first, without their values."""
    method = session.connections.review.ListRareCombinations
    emit_pages(session, method, request, COMBINATIONS, limit)


def statement(
    session: CommandSession,
    output: Annotated[Path, typer.Option("--out", help="The file to write.")] = Path("residual-statement.json"),
    source: Sources = [],  # noqa: B006
) -> None:
    """Write the report as a signed statement for the records. Needs the role data-protection."""
    signed = session.connections.review.SignStatement(pb.SignStatementRequest(sources=source)).statement
    content = {"body": signed.body, "signature": signed.signature.hex(), "public_key": signed.public_key.hex()}
    try:
        output.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError:
        raise FailedPrecondition(Reason.CANNOT_WRITE, f"{output} cannot be written; choose another --out.") from None
    session.output.emit({"file": str(output), **content}, f"Signed by {content['public_key']}: {output}")


def verify(
    session: CommandSession, file: Annotated[Path, typer.Argument(help="A file that `tailor review statement` wrote.")]
) -> None:
    """Check that this installation signed a statement, and that nobody changed it."""
    answer = session.connections.review.VerifyStatement(pb.VerifyStatementRequest(statement=read_statement(file)))
    if not answer.valid:
        raise FailedPrecondition(
            Reason.INVALID_STATEMENT, f"{file} was changed, or signed by another installation. Ask for the original."
        )
    session.output.emit({"valid": True}, "Valid: this installation signed exactly this statement.")


def read_mark(text: str) -> pb.PassageMark:
    """`120:135:PERSON`; without a type, `120:135:`. Raises InvalidArgument for anything else."""
    match = MARK.fullmatch(text)
    if match is None:
        raise InvalidArgument(Reason.INVALID_MARKS, "--mark must be START:END:TYPE, such as 120:135:PERSON.")
    return pb.PassageMark(start=int(match[1]), end=int(match[2]), entity_type=match[3] or "")


def read_statement(file: Path) -> pb.SignedStatement:
    """Raises InvalidArgument (INVALID_STATEMENT) for a file that is not a statement."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return pb.SignedStatement(
            body=content["body"],
            signature=bytes.fromhex(content["signature"]),
            public_key=bytes.fromhex(content["public_key"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        raise InvalidArgument(
            Reason.INVALID_STATEMENT, f"{file} must be a file that `tailor review statement` wrote."
        ) from None


def describe_passage(answer: pb.NextPassageResponse) -> Iterator[Any]:
    """The passage with its context in italics."""
    if not answer.HasField("passage"):
        yield "Nothing waits. Draw a sample with `tailor review sample`."
        return
    passage = answer.passage
    labels = ", ".join(filter(None, (passage.source, passage.language)))
    yield f"{passage.passage_id}  {passage.document_id} {labels}, characters {passage.start} to {passage.end}"
    if not passage.replaced_known:
        yield "This document has a newer version: the surrogates of this one are not dimmed."
    text = Text(passage.text)
    text.stylize("italic dim", 0, passage.start)
    text.stylize("italic dim", passage.end)
    for stretch in passage.stretches:
        text.stylize(STYLES.get(stretch.kind, ""), stretch.start, stretch.end)
    yield text
    yield f"Types: {', '.join(passage.entity_types)}"
    yield _describe_waiting(answer.waiting)


def describe_report(report: pb.GetResidualReportResponse) -> Iterator[Any]:
    """The estimates, the limit, and what is not known."""
    if not report.HasField("sample"):
        yield "No sample was drawn yet: nobody knows what is left. Draw one with `tailor review sample`."
    else:
        yield f"{describe_estimate(report.overall)}. Sample {report.sample.sample_id}, seed {report.sample.seed}."
        if report.sample.passages_now > report.overall.passages:
            more = report.sample.passages_now - report.overall.passages
            yield f"{more:,} passages arrived since the sample was drawn; it says nothing about them."
        strata = [(item.source or "-", item.language or "-", item) for item in report.strata]
        yield item_table("", ESTIMATES, [("all", "", report.overall), *strata])
    if report.HasField("limit"):
        yield "The limit is met." if report.limit.met else f"Nothing trains: {report.limit.message}"
    if report.rules_only_documents:
        counts = ", ".join(f"{count} in {name}" for name, count in sorted(report.rules_only_documents.items()))
        yield f"Documents with passages that no detector covers, masked by rules only: {counts}."
    yield _describe_waiting(report.waiting)
    yield f"{report.rare_combinations} rare combinations of quasi-identifiers; see `tailor review combinations`."


def _describe_waiting(waiting: pb.QueueCounts) -> str:
    return f"{waiting.sample} passages of the sample and {waiting.disagreement} disagreements wait."


def describe_estimate(estimate: pb.ResidualEstimate) -> str:
    """`20 of 400 left: 5.0 % [3.1, 7.6]`."""
    if not estimate.HasField("any"):
        return f"None of {estimate.drawn} sampled passages was reviewed"
    return f"{estimate.any.left} of {estimate.reviewed} left: {describe_share(estimate.any)}"


def describe_share(share: pb.ResidualShare) -> str:
    """`5.0 % [3.1, 7.6]`."""
    return f"{100 * share.share:.1f} % [{100 * share.low:.1f}, {100 * share.high:.1f}]"


ESTIMATES = columns(
    None,
    "source=0, language=1, passages=2.passages|{:,}",
    ("reviewed", lambda row: f"{row[2].reviewed} of {row[2].drawn}"),
    ("left", lambda row: row[2].any.left if row[2].HasField("any") else "-"),
    ("share", lambda row: describe_share(row[2].any) if row[2].HasField("any") else "-"),
    (
        "by type",
        lambda row: ", ".join(f"{kind} {describe_share(share)}" for kind, share in sorted(row[2].types.items())),
    ),
)
