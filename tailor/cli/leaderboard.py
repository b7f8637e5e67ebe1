"""`tailor leaderboard`: a specialist's adapters and prompts by their scores."""

from typing import Annotated

import typer
from rich.console import Console

from tailor.api.registry.v1 import registry_pb2, registry_pb2_grpc
from tailor.cli.adapters import SpecialistName
from tailor.cli.calls import adapter_digest, unary
from tailor.cli.figures import describe, describe_price, state_of
from tailor.cli.messages import to_dict
from tailor.cli.output import short, table
from tailor.cli.session import session_of

UNTUNED = ("base", "few_shot", "prompt")

app = typer.Typer()


@app.command()
def leaderboard(
    context: typer.Context,
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
    session = session_of(context)
    registry = session.connections.registry
    for entry, pinned in ((pin, True), (unpin, False)):
        if entry:
            request = registry_pb2.PinEntryRequest(specialist=specialist, entry=_entry(registry, entry), pinned=pinned)
            unary("registry", registry.PinEntry, request)
    answer = unary(
        "registry",
        registry.GetLeaderboard,
        registry_pb2.GetLeaderboardRequest(specialist=specialist, metric=metric),
    )
    session.output.emit(to_dict(answer), lambda console: _print(console, answer))


def _entry(registry: registry_pb2_grpc.RegistryServiceStub, entry: str) -> str:
    """The name of a model without tuning, or the whole digest of an adapter."""
    return entry if entry in UNTUNED or entry.startswith("external:") else adapter_digest(registry, entry)


def _print(console: Console, answer: registry_pb2.GetLeaderboardResponse) -> None:
    better = "lower is better" if answer.lower_is_better else "higher is better"
    columns = ("", "rank", "model", "state", answer.metric, "gain over base", "median", "per 1,000", "rows", "dataset")
    rows = [_row(entry, answer.metric) for entry in answer.entries]
    console.print(table(f"by {answer.metric} ({better}), 95 % intervals", columns, rows))
    if len({entry.dataset_digest for entry in answer.entries}) > 1:
        console.print("Scores on different datasets cannot be compared; each dataset has its own ranks.")
    if answer.not_evaluated:
        console.print(f"Not shown: {answer.not_evaluated} adapters without an evaluation.")
    if answer.left_out:
        console.print(f"Not shown: {answer.left_out} older adapters.")


def _row(entry: registry_pb2.LeaderboardEntry, metric: str) -> tuple[object, ...]:
    return (
        "pinned" if entry.pinned else "",
        entry.rank or "-",
        short(entry.adapter_digest) if entry.adapter_digest else entry.model,
        state_of(entry.state) if entry.state else "",
        describe(entry.scores[metric]) if metric in entry.scores else "not measured",
        describe(entry.gains[metric], "+") if metric in entry.gains else "",
        f"{entry.cost.median_seconds:.2f} s" if entry.HasField("cost") else "",
        describe_price(entry.cost),
        entry.rows,
        short(entry.dataset_digest),
    )
