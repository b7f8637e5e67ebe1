"""`tailor specialist leaderboard`: a specialist's adapters and prompts by their scores."""

from typing import Annotated

import typer
from rich.console import Console

from tailor.api.registry.v1 import registry_pb2, registry_pb2_grpc
from tailor.cli.adapters import SpecialistName
from tailor.cli.calls import adapter_digest, unary
from tailor.cli.columns import ShownField, columns, emit_list, show_field
from tailor.cli.figures import describe, describe_price
from tailor.cli.messages import to_dict
from tailor.cli.session import CommandSession
from tailor.cli.whole_words import Digest

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
            request = registry_pb2.PinEntryRequest(specialist=specialist, entry=_entry(registry, entry), pinned=pinned)
            unary("registry", registry.PinEntry, request)
    answer = unary(
        "registry",
        registry.GetLeaderboard,
        registry_pb2.GetLeaderboardRequest(specialist=specialist, metric=metric),
    )
    shown = list_columns(answer.metric)
    emit_list(
        session,
        answer.entries,
        shown,
        document=to_dict(answer),
        remarks=lambda console: _print_remarks(console, answer),
    )


def _entry(registry: registry_pb2_grpc.RegistryServiceStub, entry: str) -> str:
    """The name of a model without tuning, or the whole digest of an adapter."""
    return entry if entry in UNTUNED or entry.startswith("external:") else adapter_digest(registry, entry)


def _print_remarks(console: Console, answer: registry_pb2.GetLeaderboardResponse) -> None:
    console.print(f"By {answer.metric}: {'lower' if answer.lower_is_better else 'higher'} is better. 95 % intervals.")
    if len({entry.dataset_digest for entry in answer.entries}) > 1:
        console.print("Scores on different datasets cannot be compared; each dataset has its own ranks.")
    if answer.not_evaluated:
        console.print(f"Not shown: {answer.not_evaluated} adapters without an evaluation.")
    if answer.skipped:
        console.print(f"Not shown: {answer.skipped} older adapters.")


def list_columns(metric: str) -> tuple[ShownField, ...]:
    """The columns of a ranking by a metric."""
    return columns(
        ("", lambda entry: "pinned" if entry.pinned else ""),
        ("rank", lambda entry: entry.rank or "-"),
        ("model", lambda entry: Digest(entry.adapter_digest) if entry.adapter_digest else entry.model),
        ("state", lambda entry: show_field(entry, "state") if entry.state else ""),
        (metric, lambda entry: describe(entry.scores[metric]) if metric in entry.scores else "not measured"),
        ("gain over base", lambda entry: describe(entry.gains[metric], "+") if metric in entry.gains else ""),
        ("median", lambda entry: f"{entry.cost.median_seconds:.2f} s" if entry.HasField("cost") else ""),
        ("per 1,000", lambda entry: describe_price(entry.cost)),
        "rows",
        "dataset=dataset_digest",
    )
