"""`tailor synthesis`: rows that a teacher writes, within a budget."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from tailor.api.synthetic.v1 import synthesis_pb2 as pb
from tailor.cli import ids
from tailor.cli.calls import first, pages
from tailor.cli.options import Limit, SpecialistName, listed
from tailor.cli.output import bold
from tailor.cli.session import CommandSession
from tailor.cli.tables import Fields, emit_pages, item_table
from tailor.columns import columns, read
from tailor.errors import FailedPrecondition, InvalidArgument, Reason
from tailor.events.envelope import new_id
from tailor.list_columns import SYNTHESES

# The barrier reads every example before the call returns.
CREATE_SECONDS = 300.0

SynthesisId = Annotated[
    str, typer.Argument(metavar="ID", help="The synthesis's id, or its first digits.", callback=ids.synthesis_id)
]
RowId = Annotated[
    str,
    typer.Argument(
        metavar="ROW", help="The row's id, or its first digits; see `tailor synthesis samples`.", callback=ids.sample_id
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
        list[Path], typer.Option(help="A file with an example per line: JSON with `prompt` and `answer`; repeatable.")
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
    created = session.connections.syntheses.CreateSynthesis(request, timeout=CREATE_SECONDS).synthesis
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


@listed
def list_syntheses(session: CommandSession, request: pb.ListSynthesesRequest, limit: Limit = 50) -> None:
    """List syntheses, newest first."""
    shown = columns(None, *SYNTHESES.pick("synthesis, specialist, task, state"), ("progress", progress))
    emit_pages(session, session.connections.syntheses.ListSyntheses, request, shown, limit)


def show(session: CommandSession, synthesis_id: SynthesisId) -> None:
    """Show one synthesis: its rows, what was refused and why, tokens and cost."""
    request = pb.GetSynthesisRequest(synthesis_id=synthesis_id)
    emit_synthesis(session, session.connections.syntheses.GetSynthesis(request).synthesis)


def comments(session: CommandSession, specialist: SpecialistName) -> None:
    """Count what became of the comments of experts: revised, refused and why, or waiting."""
    answer = session.connections.syntheses.CountComments(pb.CountCommentsRequest(specialist=specialist))
    session.output.emit(answer, describe_comments(answer))


def watch(session: CommandSession, synthesis_id: SynthesisId) -> None:
    """Follow a synthesis until it ends, or pauses for something that you must do."""
    follow_synthesis(session, synthesis_id)


@listed
def samples(
    session: CommandSession,
    request: pb.ListSamplesRequest,
    synthesis_id: SynthesisId,
    limit: Annotated[int, typer.Option(min=1, help="Max samples to show.")] = 20,
) -> None:
    """Show rows with their texts, those that were refused too."""
    request.synthesis_id = synthesis_id
    rows = first(limit, pages(session.connections.syntheses.ListSamples, request))
    session.output.emit({"samples": rows}, map(describe_sample, rows) if rows else "none yet")


def accept(session: CommandSession, synthesis_id: SynthesisId, row_id: RowId) -> None:
    """Let a row join datasets."""
    _review(session, synthesis_id, row_id, accept=True)


def reject(session: CommandSession, synthesis_id: SynthesisId, row_id: RowId) -> None:
    """Keep a row out of datasets."""
    _review(session, synthesis_id, row_id, accept=False)


def _review(session: CommandSession, synthesis_id: str, row_id: str, *, accept: bool) -> None:
    decision = pb.SampleDecision(row_id=row_id, accept=accept)
    request = pb.ReviewSamplesRequest(synthesis_id=synthesis_id, decisions=[decision])
    emit_synthesis(session, session.connections.syntheses.ReviewSamples(request).synthesis)


def cancel(session: CommandSession, synthesis_id: SynthesisId) -> None:
    """End a synthesis; its rows stay."""
    request = pb.CancelSynthesisRequest(synthesis_id=synthesis_id)
    emit_synthesis(session, session.connections.syntheses.CancelSynthesis(request).synthesis)


def resume(session: CommandSession, synthesis_id: SynthesisId) -> None:
    """Continue a paused synthesis at once."""
    request = pb.ResumeSynthesisRequest(synthesis_id=synthesis_id)
    emit_synthesis(session, session.connections.syntheses.ResumeSynthesis(request).synthesis)


# Pauses that end only when somebody does something.
NEEDS_SOMEBODY = {Reason.TEACHER_KEY_REFUSED, Reason.TEACHER_QUOTA, Reason.TEACHER_UNKNOWN_MODEL}


def follow_synthesis(session: CommandSession, synthesis_id: str) -> None:
    """Show every change. Raises FailedPrecondition with the reason of a pause that needs somebody."""
    synthesis = pb.Synthesis()
    request = pb.WatchSynthesisRequest(synthesis_id=synthesis_id)
    for response in session.connections.syntheses.WatchSynthesis(request):
        synthesis = response.synthesis
        session.output.note(f"{state_of(synthesis)}: {progress(synthesis)}")
        if synthesis.state == pb.SYNTHESIS_STATE_PAUSED:
            session.output.note(synthesis.message)
            if Reason(synthesis.reason) in NEEDS_SOMEBODY:
                raise FailedPrecondition(Reason(synthesis.reason), synthesis.message)
    emit_synthesis(session, synthesis)


CRITIQUE = "critique"
FATES = (
    ("accepted", "revised, in the next datasets"),
    ("pending", "revised, waiting for an expert"),
    ("rejected", "revised, rejected by an expert"),
    ("running", "being answered"),
    ("waiting", "waiting for a synthesis"),
    ("held_out", "on held-out prompts"),
    ("without_texts", "on drafts without stored texts"),
)
TEACHER_NOTES = {
    pb.TEACHER_STATE_NONE: (
        "No teacher is configured, so nothing is revised. Set TAILOR_TEACHER_BASE_URL and TAILOR_TEACHER_MODEL for synthetic."
    ),
    pb.TEACHER_STATE_NOT_ALLOWED: "The definition allows no teacher, so nothing is revised. Set `use_teacher = true` and update it.",
}


def state_of(synthesis: pb.Synthesis) -> str:
    """The state for people, such as `running`."""
    return str(read(synthesis, "state"))


def progress(synthesis: pb.Synthesis) -> str:
    """Rows, refusals, tokens and money in one line."""
    spec = synthesis.spec
    parts = [
        f"{synthesis.accepted + synthesis.pending}/{spec.target} rows",
        f"{synthesis.pending} wait for an expert" if synthesis.pending else "",
        f"{sum(refusal.rows for refusal in synthesis.refusals)} refused" if synthesis.refusals else "",
        tokens_of(synthesis),
        money_of(synthesis),
    ]
    return ", ".join(filter(None, parts))


def tokens_of(synthesis: pb.Synthesis) -> str:
    """Tokens used, and the budget if there is one. Lost answers count by their worst case."""
    budget = synthesis.spec.budget_tokens
    used = synthesis.use.tokens + synthesis.use.lost_tokens
    return f"{used:,} of {budget:,} tokens" if budget else f"{used:,} tokens"


def money_of(synthesis: pb.Synthesis) -> str:
    """The cost, and the budget if there is one; empty without prices."""
    if not synthesis.use.HasField("eur"):
        return ""
    budget = synthesis.spec.budget_eur
    return f"{synthesis.use.eur:.4f} of {budget:.2f} EUR" if budget else f"{synthesis.use.eur:.4f} EUR"


def seeds_of(spec: pb.SynthesisSpec) -> str:
    """What the rows are made from."""
    if spec.task == CRITIQUE:
        return f"{spec.target} comments of experts"
    return f"{len(spec.document_ids)} documents and {len(spec.examples)} examples as seeds"


FACTS = columns(
    pb.Synthesis,
    "synthesis=synthesis_id, specialist=spec.specialist, task=spec.task, state",
    ("reason", lambda item: f"{item.reason}: {item.message}" if item.reason else ""),
    ("progress", progress),
    ("seeds", lambda item: seeds_of(item.spec)),
    "teacher, judge, prompts of version=prompt_version",
)


COUNTS = columns(None, "comments=0, number=1")
REFUSALS = columns(pb.SynthesisRefusals, "reason|words, rows")


def describe_comments(answer: pb.CountCommentsResponse) -> Iterator[Any]:
    """What became of comments."""
    yield f"{answer.comments} comments"
    fates = [(name, getattr(answer, field)) for field, name in FATES]
    fates += [(f"refused: {item.reason.replace('_', ' ')}", item.rows) for item in answer.refusals]
    if rows := [fate for fate in fates if fate[1]]:
        yield item_table("", COUNTS, rows)
    if answer.tokens_per_month:
        used = f"{answer.tokens_this_month:,} of {answer.tokens_per_month:,} tokens of this month"
        yield f"{used} are used or reserved."
    yield TEACHER_NOTES.get(answer.teacher)


def emit_synthesis(session: CommandSession, synthesis: pb.Synthesis) -> None:
    """Write a synthesis as the command's result."""
    refused = item_table("refused", REFUSALS, synthesis.refusals) if synthesis.refusals else None
    session.output.emit(synthesis, Fields(FACTS, synthesis), refused)


def describe_sample(sample: pb.Sample) -> Iterator[Any]:
    """A sample with its texts."""
    mark = f", mark {sample.mark}" if sample.mark else ""
    if sample.HasField("back_translation"):
        mark += f", back-translation {sample.back_translation:.0f}"
    yield bold(sample.row_id, f" {read(sample, 'state')} {sample.reason.replace('_', ' ')}{mark}".rstrip())
    yield f"prompt: {sample.prompt}"
    yield f"answer: {sample.completion}"
