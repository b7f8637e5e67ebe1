"""`tailor review`: what the barrier left, by people who look at passages, and how much that is."""

import json
import re
from pathlib import Path
from typing import Annotated

import typer

from tailor.api.anonymization.v1 import review_pb2 as pb
from tailor.cli import ids
from tailor.cli.calls import first, pages, unary
from tailor.cli.columns import columns, emit_items
from tailor.cli.messages import to_dict
from tailor.cli.output import shows
from tailor.cli.review_views import render_passage, render_report
from tailor.cli.session import CommandSession
from tailor.errors import FailedPrecondition, InvalidArgument, Reason

DRAW_SECONDS = 300.0
MARK = re.compile(r"(\d+):(\d+):([A-Z][A-Z0-9_]*)?")
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
    answer = unary("anonymization", session.connections.review.DrawSample, request, DRAW_SECONDS)
    text = f"{answer.drawn} of {answer.passages:,} passages of {answer.documents:,} documents wait for review, "
    text += "at /review or with `tailor review next`."
    session.output.emit(to_dict(answer), shows(text))


def next_(
    session: CommandSession,
    kind: Annotated[str, typer.Option(help="`sample` or `disagreement`; by default, the sample first.")] = "",
) -> None:
    """Show the next passage, and reserve it for you for ten minutes. Surrogates are dimmed; what detectors disagree about is underlined."""
    if kind not in KINDS:
        raise InvalidArgument(Reason.INVALID_ARGUMENT, "--kind must be sample or disagreement.")
    answer = unary("anonymization", session.connections.review.NextPassage, pb.NextPassageRequest(kind=KINDS[kind]))
    session.output.emit(to_dict(answer), lambda console: render_passage(console, answer))


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
    unary("anonymization", session.connections.review.DecidePassage, request)
    session.output.emit({"passage_id": passage}, shows("Skipped." if skip else "Recorded."))


def undo(session: CommandSession) -> None:
    """Take back your last decision."""
    answer = unary("anonymization", session.connections.review.UndoDecision, pb.UndoDecisionRequest())
    session.output.emit(to_dict(answer), shows(f"{answer.passage_id} waits again."))


def drop(
    session: CommandSession,
    term: Annotated[str, typer.Argument(help="The text as it was marked. It is sent only to anonymization.")],
) -> None:
    """Forget what reviews decided about a text: it is then neither always personal nor never."""
    unary("anonymization", session.connections.review.DropTerm, pb.DropTermRequest(term=term))
    session.output.emit({"dropped": True}, shows("Dropped, for documents that pass from now on."))


def report(session: CommandSession, source: Sources = []) -> None:  # noqa: B006
    """Show the share of passages in which something was left, with its 95 % interval: overall, by source and language, by type."""
    request = pb.GetResidualReportRequest(sources=source)
    answer = unary("anonymization", session.connections.review.GetResidualReport, request)
    session.output.emit(to_dict(answer), lambda console: render_report(console, answer))


def combinations(
    session: CommandSession, limit: Annotated[int, typer.Option(min=1, help="Max combinations to list.")] = 50
) -> None:
    """List combinations of quasi-identifiers that fewer than five documents share, rarest first, without their values."""
    request = pb.ListRareCombinationsRequest()
    items = first(
        limit, pages("anonymization", session.connections.review.ListRareCombinations, request, "combinations")
    )
    emit_items(session, "combinations", items, COMBINATIONS)


COMBINATIONS = columns(
    "document=document_id", "types=entity_types", "documents that share it=documents", "passage=number"
)


def statement(
    session: CommandSession,
    output: Annotated[Path, typer.Option("--out", help="The file to write.")] = Path("residual-statement.json"),
    source: Sources = [],  # noqa: B006
) -> None:
    """Write the report as a signed statement for the records. Needs the role data-protection."""
    request = pb.SignStatementRequest(sources=source)
    signed = unary("anonymization", session.connections.review.SignStatement, request).statement
    content = {"body": signed.body, "signature": signed.signature.hex(), "public_key": signed.public_key.hex()}
    try:
        output.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError:
        raise FailedPrecondition(Reason.CANNOT_WRITE, f"{output} cannot be written; choose another --out.") from None
    session.output.emit({"file": str(output), **content}, shows(f"Signed by {content['public_key']}: {output}"))


def verify(
    session: CommandSession, file: Annotated[Path, typer.Argument(help="A file that `tailor review statement` wrote.")]
) -> None:
    """Check that this installation signed a statement, and that nobody changed it."""
    request = pb.VerifyStatementRequest(statement=read_statement(file))
    answer = unary("anonymization", session.connections.review.VerifyStatement, request)
    if not answer.valid:
        raise FailedPrecondition(
            Reason.INVALID_STATEMENT, f"{file} was changed, or signed by another installation. Ask for the original."
        )
    session.output.emit({"valid": True}, shows("Valid: this installation signed exactly this statement."))


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
