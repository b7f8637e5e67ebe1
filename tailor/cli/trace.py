"""`tailor trace`: the origin of a draft."""

from typing import Annotated

import typer
from rich.console import Console

from tailor.api.registry.v1 import registry_pb2
from tailor.cli.calls import unary
from tailor.cli.columns import columns, item_table
from tailor.cli.figures import decision_of, describe_decision, figures_table, print_definition, print_verdict, state_of
from tailor.cli.messages import to_dict
from tailor.cli.session import CommandSession

DOCUMENTS = columns(
    "document=document_id", "version=version.sequence", "format", "source=labels.source", "department=labels.department"
)


def trace(
    session: CommandSession,
    draft: Annotated[str, typer.Argument(help="The draft's id, or at least its first 6 digits.")],
) -> None:
    """Show the adapter, run, datasets, reward adapter and documents behind a draft."""
    answer = unary("registry", session.connections.registry.Trace, registry_pb2.TraceRequest(draft_id=draft))
    session.output.emit(to_dict(answer), lambda console: _print(console, answer))


def _print(console: Console, answer: registry_pb2.TraceResponse) -> None:
    draft = answer.draft
    console.print(f"draft    {draft.draft_id}, {draft.completion_tokens} tokens in {draft.seconds:.1f} s")
    if not answer.HasField("adapter"):
        console.print(f"answered by the base {draft.base}")
        return
    adapter, dataset = answer.adapter, answer.dataset
    canary = ", its canary" if draft.canary else ""
    console.print(f"answered by {draft.specialist}, generation {draft.generation}{canary}")
    console.print(f"adapter  {adapter.digest}", highlight=False)
    console.print(
        f"run      {adapter.run_id}, {adapter.steps} steps, loss {adapter.first_loss:.2f} to {adapter.last_loss:.2f}"
    )
    console.print(f"dataset  {dataset.digest}, {dataset.train_rows} rows", highlight=False)
    if answer.HasField("preference_dataset"):
        pairs = answer.preference_dataset
        learned = f"{pairs.train_rows} pairs of {pairs.judgements} judgements"
        console.print(f"rankings {pairs.digest}, {learned}, round {adapter.round}", highlight=False)
    if adapter.reward_adapter_digest:
        console.print(f"reward   {adapter.reward_adapter_digest}", highlight=False)
    console.print(f"state    {state_of(answer.state)}")
    if answer.HasField("operator_decision"):
        console.print(f"decision {describe_decision(answer.operator_decision)}", highlight=False)
    if answer.HasField("evaluation"):
        console.print(figures_table(answer.evaluation))
        print_definition(console, answer.evaluation)
        console.print(f"verdict  {decision_of(answer.decision)}, on its newest evaluation")
        print_verdict(console, "verdict ", answer.decision, answer.reasons)
    if answer.documents:
        console.print(item_table("documents", DOCUMENTS, answer.documents))
