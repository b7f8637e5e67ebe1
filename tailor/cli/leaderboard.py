"""`tailor specialist leaderboard`: a specialist's adapters and prompts by their scores."""

from collections.abc import Iterator
from typing import Annotated

import typer

from tailor.api.registry.v1 import registry_pb2, registry_pb2_grpc
from tailor.cli.calls import adapter_digest
from tailor.cli.options import SpecialistName
from tailor.cli.session import CommandSession
from tailor.cli.tables import emit_list
from tailor.list_columns import list_leaderboard

UNTUNED = ("base", "few_shot", "prompt")


def leaderboard(
    session: CommandSession,
    specialist: SpecialistName,
    metric: Annotated[str, typer.Option(help="Rank by this metric; by default, the gate's primary one.")] = "",
    pin: Annotated[
        str, typer.Option(metavar="ENTRY", help="Keep an adapter, or a model such as `few_shot`, at the top.")
    ] = "",
    unpin: Annotated[str, typer.Option(metavar="ENTRY", help="Stop keeping an entry at the top.")] = "",
) -> None:
    """Rank a specialist's adapters, prompts and external models, with 95 % intervals, latency and price.

    Ranks are separate for each dataset, because scores on different rows cannot be compared.
    """
    registry = session.connections.registry
    for entry, pinned in ((pin, True), (unpin, False)):
        if entry:
            change = registry_pb2.PinEntryRequest(specialist=specialist, entry=_entry(registry, entry), pinned=pinned)
            registry.PinEntry(change)
    answer = registry.GetLeaderboard(registry_pb2.GetLeaderboardRequest(specialist=specialist, metric=metric))
    shown = list_leaderboard(answer.metric)
    emit_list(session, answer.entries, shown, document=answer, remarks=_list_remarks(answer))


def _entry(registry: registry_pb2_grpc.RegistryServiceStub, entry: str) -> str:
    """The name of a model without tuning, or the whole digest of an adapter."""
    return entry if entry in UNTUNED or entry.startswith("external:") else adapter_digest(registry, entry)


def _list_remarks(answer: registry_pb2.GetLeaderboardResponse) -> Iterator[str]:
    yield f"By {answer.metric}: {'lower' if answer.lower_is_better else 'higher'} is better. 95 % intervals."
    if len({entry.dataset_digest for entry in answer.entries}) > 1:
        yield "Scores on different datasets cannot be compared; each dataset has its own ranks."
    if answer.not_evaluated:
        yield f"Not shown: {answer.not_evaluated} adapters without an evaluation."
    if answer.skipped:
        yield f"Not shown: {answer.skipped} older adapters."
