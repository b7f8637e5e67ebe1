"""`tailor synthesis`: rows that a teacher writes, within a budget."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from tailor.api.synthetic.v1 import synthesis_pb2 as pb
from tailor.cli import ids
from tailor.cli.calls import calling, first, pages, unary
from tailor.cli.columns import columns, emit_items
from tailor.cli.session import CommandSession
from tailor.cli.synthesis_views import emit_comments, emit_sample_list, emit_synthesis, progress, state_of
from tailor.errors import FailedPrecondition, InvalidArgument, Reason
from tailor.events.envelope import new_id

# The barrier reads every example before the call returns.
CREATE_SECONDS = 300.0

SynthesisId = Annotated[
    str, typer.Argument(metavar="ID", help="The synthesis's id, or its first digits.", callback=ids.synthesis_id)
]
RowId = Annotated[
    str,
    typer.Argument(
        metavar="ROW",
        help="The row's id, or its first digits; see `tailor synthesis samples`.",
        callback=ids.sample_id,
    ),
]


def create(
    session: CommandSession,
    specialist: Annotated[str, typer.Argument(help="The specialist's name; its definition must allow a teacher.")],
    *,
    task: Annotated[
        str,
        typer.Option(
            help="`answer`, `knowledge`, `rewrite`, `board_summary`, `translation`, `critique`, one of the specialist's own, or any with "
            "--instruction."
        ),
    ],
    count: Annotated[int, typer.Option(min=1, help="Rows to make; for `critique`, comments to answer.")],
    seeds: Annotated[
        int, typer.Option(min=0, help="Documents to draw as seeds; 5 if 0 and nothing else is given.")
    ] = 0,
    document: Annotated[
        list[str],
        typer.Option(
            help="A document to use as a seed, by its id's first digits; repeatable.", callback=ids.document_ids
        ),
    ] = [],  # noqa: B006
    example: Annotated[
        list[Path],
        typer.Option(help="A file with an example per line: JSON with `prompt` and `answer`; repeatable."),
    ] = [],  # noqa: B006
    instruction: Annotated[str, typer.Option(help="What the rows are about and how they are written.")] = "",
    attribute: Annotated[
        list[str], typer.Option(metavar="NAME=A,B", help="A dimension of the grid with its values; repeatable.")
    ] = [],  # noqa: B006
    persona: Annotated[list[str], typer.Option(help="Who asks; repeatable.")] = [],  # noqa: B006
    language: Annotated[list[str], typer.Option(help="A language, such as `de`; repeatable.")] = [],  # noqa: B006
    budget_eur: Annotated[float, typer.Option(min=0, help="Max cost in EUR; needs prices.")] = 0.0,
    budget_tokens: Annotated[int, typer.Option(min=0, help="Max tokens of all prompts and answers.")] = 0,
    price_input: Annotated[
        float | None, typer.Option(min=0, help="The teacher's EUR per million tokens of prompts.")
    ] = None,
    price_output: Annotated[
        float | None, typer.Option(min=0, help="The teacher's EUR per million tokens of answers.")
    ] = None,
    judge_price_input: Annotated[
        float | None, typer.Option(min=0, help="The judge's EUR per million tokens of prompts.")
    ] = None,
    judge_price_output: Annotated[
        float | None, typer.Option(min=0, help="The judge's EUR per million tokens of answers.")
    ] = None,
    min_mark: Annotated[int, typer.Option(min=0, max=5, help="Min mark of the judge model; 0 for no judge.")] = 0,
    min_back_translation: Annotated[
        float | None,
        typer.Option(min=0, max=100, help="Min score (chrF) of a translation that is translated back; by default, 40."),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0, max=2, help="The teacher's temperature; by default, 0.8.")
    ] = None,
    max_answer_tokens: Annotated[int, typer.Option(min=0, help="Max tokens of one answer; 1200 if 0.")] = 0,
    review: Annotated[bool, typer.Option("--review", help="Rows wait until an expert accepts them.")] = False,
    request_id: Annotated[str, typer.Option(help="A repeated id returns the same synthesis.")] = "",
    follow: Annotated[bool, typer.Option("--follow", help="Show the progress until it ends.")] = False,
) -> None:
    """Let a teacher write rows from seeds, within a budget that is never passed. It goes on if this command ends."""
    spec = pb.SynthesisSpec(
        specialist=specialist,
        task=task,
        target=count,
        seeds=seeds,
        document_ids=document,
        examples=[item for path in example for item in read_examples(path)],
        instruction=instruction,
        attributes=[read_attribute(text) for text in attribute],
        personas=persona,
        languages=language,
        budget_eur=budget_eur,
        budget_tokens=budget_tokens,
        teacher_price=_price("--price-input", price_input, price_output),
        judge_price=_price("--judge-price-input", judge_price_input, judge_price_output),
        min_mark=min_mark,
        min_back_translation=min_back_translation,
        temperature=temperature,
        max_answer_tokens=max_answer_tokens,
        needs_review=review,
    )
    request = pb.CreateSynthesisRequest(spec=spec, request_id=request_id or new_id("req"))
    created = unary("synthetic", session.connections.syntheses.CreateSynthesis, request, CREATE_SECONDS).synthesis
    if follow:
        follow_synthesis(session, created.synthesis_id)
    else:
        emit_synthesis(session, created)


def read_examples(path: Path) -> Iterator[pb.InlineExample]:
    """Raises InvalidArgument (INVALID_FILE) with the line that is wrong."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise InvalidArgument(Reason.INVALID_FILE, f"{path} cannot be read as UTF-8 text.") from None
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _example(path, number, line)


def _example(path: Path, number: int, line: str) -> pb.InlineExample:
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    if not isinstance(value, dict) or set(value) != {"prompt", "answer"} or not all(map(_is_text, value.values())):
        raise InvalidArgument(
            Reason.INVALID_FILE, f"{path}, line {number}: must be a JSON object with the texts `prompt` and `answer`."
        )
    return pb.InlineExample(prompt=value["prompt"], answer=value["answer"])


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def read_attribute(text: str) -> pb.SynthesisAttribute:
    """`sector=banks,insurers`. Raises InvalidArgument for anything else."""
    name, mark, values = text.partition("=")
    items = [value.strip() for value in values.split(",") if value.strip()]
    if not mark or not name.strip() or not items:
        raise InvalidArgument(Reason.INVALID_ARGUMENT, f"--attribute must be NAME=VALUE,VALUE, not {text!r}.")
    return pb.SynthesisAttribute(name=name.strip(), values=items)


def _price(option: str, prompt: float | None, answer: float | None) -> pb.SynthesisPrice | None:
    if prompt is None and answer is None:
        return None
    if prompt is None or answer is None:
        other = option.replace("input", "output")
        raise InvalidArgument(Reason.INVALID_ARGUMENT, f"Give both {option} and {other}, or neither.")
    return pb.SynthesisPrice(input=prompt, output=answer)


def list_syntheses(
    session: CommandSession,
    specialist: Annotated[str, typer.Option(help="List only those of this specialist.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="Max syntheses to list.")] = 50,
) -> None:
    """List syntheses, newest first."""
    request = pb.ListSynthesesRequest(specialist=specialist)
    items = first(limit, pages("synthetic", session.connections.syntheses.ListSyntheses, request, "syntheses"))
    emit_items(session, "syntheses", items, COLUMNS)


COLUMNS = columns(
    "synthesis=synthesis_id", "specialist=spec.specialist", "task=spec.task", "state", ("progress", progress)
)


def show(session: CommandSession, synthesis_id: SynthesisId) -> None:
    """Show one synthesis: its rows, what was refused and why, tokens and cost."""
    request = pb.GetSynthesisRequest(synthesis_id=synthesis_id)
    emit_synthesis(session, unary("synthetic", session.connections.syntheses.GetSynthesis, request).synthesis)


def comments(
    session: CommandSession, specialist: Annotated[str, typer.Argument(help="The specialist's name.")]
) -> None:
    """Count what became of the comments of experts: revised, refused and why, or waiting."""
    request = pb.CountCommentsRequest(specialist=specialist)
    emit_comments(session, unary("synthetic", session.connections.syntheses.CountComments, request))


def watch(session: CommandSession, synthesis_id: SynthesisId) -> None:
    """Follow a synthesis until it ends, or pauses for something that you must do."""
    follow_synthesis(session, synthesis_id)


def samples(
    session: CommandSession,
    synthesis_id: SynthesisId,
    state: Annotated[str, typer.Option(help="Only `pending`, `accepted`, `rejected` or `refused` ones.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="Max samples to show.")] = 20,
) -> None:
    """Show rows with their texts, those that were refused too."""
    name = f"SAMPLE_STATE_{state.upper() or 'UNSPECIFIED'}"
    if name not in pb.SampleState.DESCRIPTOR.values_by_name:
        raise InvalidArgument(
            Reason.INVALID_ARGUMENT, "--state must be `pending`, `accepted`, `rejected` or `refused`."
        )
    request = pb.ListSamplesRequest(synthesis_id=synthesis_id, state=pb.SampleState.Value(name))
    rows = pages("synthetic", session.connections.syntheses.ListSamples, request, "samples")
    emit_sample_list(session, first(limit, rows))


def accept(session: CommandSession, synthesis_id: SynthesisId, row_id: RowId) -> None:
    """Let a row join datasets."""
    _review(session, synthesis_id, row_id, accept=True)


def reject(session: CommandSession, synthesis_id: SynthesisId, row_id: RowId) -> None:
    """Keep a row out of datasets."""
    _review(session, synthesis_id, row_id, accept=False)


def _review(session: CommandSession, synthesis_id: str, row_id: str, *, accept: bool) -> None:
    decision = pb.SampleDecision(row_id=row_id, accept=accept)
    request = pb.ReviewSamplesRequest(synthesis_id=synthesis_id, decisions=[decision])
    emit_synthesis(session, unary("synthetic", session.connections.syntheses.ReviewSamples, request).synthesis)


def cancel(session: CommandSession, synthesis_id: SynthesisId) -> None:
    """End a synthesis; its rows stay."""
    request = pb.CancelSynthesisRequest(synthesis_id=synthesis_id)
    emit_synthesis(session, unary("synthetic", session.connections.syntheses.CancelSynthesis, request).synthesis)


def resume(session: CommandSession, synthesis_id: SynthesisId) -> None:
    """Continue a paused synthesis at once."""
    request = pb.ResumeSynthesisRequest(synthesis_id=synthesis_id)
    emit_synthesis(session, unary("synthetic", session.connections.syntheses.ResumeSynthesis, request).synthesis)


# Pauses that end only when somebody does something.
NEEDS_SOMEBODY = {Reason.TEACHER_KEY_REFUSED, Reason.TEACHER_QUOTA, Reason.TEACHER_UNKNOWN_MODEL}


def follow_synthesis(session: CommandSession, synthesis_id: str) -> None:
    """Show every change. Raises FailedPrecondition with the reason of a pause that needs somebody."""
    synthesis = pb.Synthesis()
    for synthesis in _watch(session, synthesis_id):
        session.output.notes.print(f"{state_of(synthesis)}: {progress(synthesis)}", highlight=False)
        if synthesis.state == pb.SYNTHESIS_STATE_PAUSED:
            session.output.notes.print(synthesis.message, highlight=False, markup=False)
            if Reason(synthesis.reason) in NEEDS_SOMEBODY:
                raise FailedPrecondition(Reason(synthesis.reason), synthesis.message)
    emit_synthesis(session, synthesis)


def _watch(session: CommandSession, synthesis_id: str) -> Iterator[pb.Synthesis]:
    request = pb.WatchSynthesisRequest(synthesis_id=synthesis_id)
    with calling("synthetic", request.DESCRIPTOR.full_name):
        call = session.connections.syntheses.WatchSynthesis(request)
        try:
            for response in call:
                yield response.synthesis
        finally:
            call.cancel()  # type: ignore[no-untyped-call]
