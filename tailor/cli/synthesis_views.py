"""Syntheses and their rows, as text and tables for people."""

from collections.abc import Sequence

from rich.console import Console

from tailor.api.synthetic.v1 import synthesis_pb2 as pb
from tailor.cli.columns import columns, print_fields
from tailor.cli.messages import short_enum, to_dict
from tailor.cli.output import table
from tailor.cli.session import CommandSession

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
    return short_enum(pb.SynthesisState, synthesis.state, "SYNTHESIS_STATE_")


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
    "synthesis=synthesis_id",
    "specialist=spec.specialist",
    "task=spec.task",
    "state",
    ("reason", lambda item: f"{item.reason}: {item.message}" if item.reason else ""),
    ("progress", progress),
    ("seeds", lambda item: seeds_of(item.spec)),
    "teacher",
    "judge",
    "prompts of version=prompt_version",
)


def emit_comments(session: CommandSession, answer: pb.CountCommentsResponse) -> None:
    """Write what became of comments."""

    def render(console: Console) -> None:
        console.print(f"{answer.comments} comments", highlight=False)
        fates = [(name, getattr(answer, field)) for field, name in FATES]
        fates += [(f"refused: {item.reason.replace('_', ' ')}", item.rows) for item in answer.refusals]
        rows = [(name, count) for name, count in fates if count]
        if rows:
            console.print(table("", ("comments", "number"), rows))
        if answer.tokens_per_month:
            used = f"{answer.tokens_this_month:,} of {answer.tokens_per_month:,} tokens of this month"
            console.print(f"{used} are used or reserved.", highlight=False)
        if note := TEACHER_NOTES.get(answer.teacher, ""):
            console.print(note)

    session.output.emit(to_dict(answer), render)


def emit_synthesis(session: CommandSession, synthesis: pb.Synthesis) -> None:
    """Write a synthesis as the command's result."""

    def render(console: Console) -> None:
        print_fields(console, synthesis, FACTS)
        if synthesis.refusals:
            rows = [(refusal.reason.replace("_", " "), refusal.rows) for refusal in synthesis.refusals]
            console.print(table("refused", ("reason", "rows"), rows))

    session.output.emit(to_dict(synthesis), render)


def emit_sample_list(session: CommandSession, samples: Sequence[pb.Sample]) -> None:
    """Write samples with their texts."""

    def render(console: Console) -> None:
        if not samples:
            console.print("none yet")
        for sample in samples:
            state = short_enum(pb.SampleState, sample.state, "SAMPLE_STATE_")
            mark = f", mark {sample.mark}" if sample.mark else ""
            if sample.HasField("back_translation"):
                mark += f", back-translation {sample.back_translation:.0f}"
            console.print(f"[bold]{sample.row_id}[/] {state} {sample.reason.replace('_', ' ')}{mark}".rstrip())
            for name, text in (("prompt", sample.prompt), ("answer", sample.completion)):
                console.print(f"{name}: {text}", markup=False)

    session.output.emit({"samples": [to_dict(sample) for sample in samples]}, render)
