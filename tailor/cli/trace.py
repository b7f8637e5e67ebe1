"""`tailor trace`: the origin of a draft."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from tailor.api.events.v1 import documents_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.cli.figures import (
    decision_of,
    describe_decision,
    describe_definition,
    describe_verdict,
    figures_table,
    state_of,
)
from tailor.cli.session import CommandSession
from tailor.cli.tables import item_table
from tailor.columns import columns

DOCUMENTS = columns(
    documents_pb2.DocumentAnonymized,
    "document=document_id, version=version.sequence, format, source=labels.source, department=labels.department",
)


def trace(
    session: CommandSession,
    draft: Annotated[str, typer.Argument(help="The draft's id, or at least its first 6 digits.")],
) -> None:
    """Show the adapter, run, datasets, reward adapter and documents behind a draft."""
    answer = session.connections.registry.Trace(registry_pb2.TraceRequest(draft_id=draft))
    session.output.emit(answer, _describe(answer))


def _describe(answer: registry_pb2.TraceResponse) -> Iterator[Any]:
    draft = answer.draft
    yield f"draft    {draft.draft_id}, {draft.completion_tokens} tokens in {draft.seconds:.1f} s"
    if not answer.HasField("adapter"):
        yield f"answered by the base {draft.base}"
        return
    adapter, dataset, pairs = answer.adapter, answer.dataset, answer.preference_dataset
    yield f"answered by {draft.specialist}, generation {draft.generation}{', its canary' if draft.canary else ''}"
    yield f"adapter  {adapter.digest}"
    yield f"run      {adapter.run_id}, {adapter.steps} steps, loss {adapter.first_loss:.2f} to {adapter.last_loss:.2f}"
    yield f"dataset  {dataset.digest}, {dataset.train_rows} rows"
    if answer.HasField("preference_dataset"):
        learned = f"{pairs.train_rows} pairs of {pairs.judgements} judgements"
        yield f"rankings {pairs.digest}, {learned}, round {adapter.round}"
    if adapter.reward_adapter_digest:
        yield f"reward   {adapter.reward_adapter_digest}"
    yield f"state    {state_of(answer.state)}"
    if answer.HasField("operator_decision"):
        yield f"decision {describe_decision(answer.operator_decision)}"
    if answer.HasField("evaluation"):
        yield figures_table(answer.evaluation)
        yield describe_definition(answer.evaluation)
        yield f"verdict  {decision_of(answer.decision)}, on its newest evaluation"
        yield describe_verdict("verdict ", answer.decision, answer.reasons)
    if answer.documents:
        yield item_table("documents", DOCUMENTS, answer.documents)
