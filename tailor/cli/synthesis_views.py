"""Syntheses and their rows, as text and tables for people."""

from collections.abc import Sequence

from rich.console import Console

from tailor.api.synthetic.v1 import synthesis_pb2 as pb
from tailor.cli.messages import short_enum, to_dict
from tailor.cli.output import table
from tailor.cli.session import CommandSession


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


def emit_synthesis(session: CommandSession, synthesis: pb.Synthesis) -> None:
    """Write a synthesis as the command's result."""

    def render(console: Console) -> None:
        spec = synthesis.spec
        console.print(f"[bold]{synthesis.synthesis_id}[/] {spec.task} for {spec.specialist}: {state_of(synthesis)}")
        if synthesis.reason:
            console.print(f"{synthesis.reason}: {synthesis.message}", markup=False)
        console.print(progress(synthesis))
        judge = f", judge {synthesis.judge}" if synthesis.judge else ""
        console.print(f"{len(spec.document_ids)} documents and {len(spec.examples)} examples as seeds")
        console.print(f"teacher {synthesis.teacher}{judge}, prompts of version {synthesis.prompt_version}")
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
