"""`tailor canary`: an adapter on a share of the callers."""

from collections.abc import Callable
from typing import Annotated

import typer
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console

from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.cli.adapters import AdapterName, Generation, SpecialistName, Wait, expected_generation
from tailor.cli.calls import adapter_digest, unary
from tailor.cli.messages import short_enum, to_dict
from tailor.cli.output import short, shows, table
from tailor.cli.rollout import reach_all
from tailor.cli.session import session_of
from tailor.errors import NotFound, Reason

app = typer.Typer(
    help="Try an adapter on a share of the callers, until it goes forward or back by itself.", no_args_is_help=True
)


@app.command()
def start(
    context: typer.Context,
    *,
    specialist: SpecialistName,
    adapter: AdapterName,
    generation: Generation = None,
    wait: Wait = False,
    percent: Annotated[
        int | None, typer.Option(min=1, max=99, help="Share of the callers, in percent.", show_default="10")
    ] = None,
    min_calls: Annotated[
        int | None, typer.Option(min=1, help="Calls of each arm that a decision rests on.", show_default="50")
    ] = None,
    max_seconds: Annotated[
        int | None,
        typer.Option(min=1, help="Seconds until it goes back if there were fewer calls.", show_default="a day"),
    ] = None,
    max_error_rate_increase: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="By how much its share of failed calls may be larger.", show_default="0.02"),
    ] = None,
    max_latency_ratio: Annotated[
        float | None, typer.Option(min=1, help="How many times as long its tokens may take.", show_default="1.5")
    ] = None,
) -> None:
    """Let a share of the callers get an adapter that passed the gate. What is not given is as the specialist's `[canary]` says."""
    session = session_of(context)
    registry = session.connections.registry
    policy = models_pb2.CanaryPolicy(
        percent=percent or 0,
        min_calls=min_calls or 0,
        max_seconds=max_seconds or 0,
        max_error_rate_increase=max_error_rate_increase,
        max_latency_ratio=max_latency_ratio or 0,
    )
    request = registry_pb2.StartCanaryRequest(
        specialist=specialist,
        adapter_digest=adapter_digest(registry, adapter, specialist),
        expected_generation=expected_generation(registry, specialist, generation),
        policy=policy,
    )
    answer = unary("registry", registry.StartCanary, request)
    if wait:
        reach_all(registry, answer.serving)
    tried, generation = answer.serving.canary, answer.serving.generation
    text = f"{tried.percent} % of the callers of {specialist} get {short(tried.adapter_digest)} from generation {generation} on."
    session.output.emit(to_dict(answer), shows(text))


@app.command()
def stop(context: typer.Context, specialist: SpecialistName, generation: Generation = None, wait: Wait = False) -> None:
    """Take the canary back: what serves goes on serving all callers."""
    session = session_of(context)
    registry = session.connections.registry
    expected = expected_generation(registry, specialist, generation)
    request = registry_pb2.StopCanaryRequest(specialist=specialist, expected_generation=expected)
    answer = unary("registry", registry.StopCanary, request)
    if wait:
        reach_all(registry, answer.serving)
    text = f"All callers of {specialist} get the same again, from generation {answer.serving.generation} on."
    session.output.emit(to_dict(answer), shows(text))


@app.command()
def show(context: typer.Context, specialist: SpecialistName) -> None:
    """Show the newest canary: what was measured of both arms, and what became of it."""
    session = session_of(context)
    registry = session.connections.registry
    answer = unary("registry", registry.GetSpecialist, registry_pb2.GetSpecialistRequest(name=specialist))
    if not answer.HasField("canary"):
        raise NotFound(Reason.NO_CANARY_YET, f"{specialist} had no canary yet; `tailor canary start` begins one.")
    session.output.emit(to_dict(answer.canary), _shown(answer.canary))


def _shown(canary: registry_pb2.Canary) -> Callable[[Console], None]:
    state = short_enum(registry_pb2.CanaryState.Name(canary.state), "CANARY_STATE_")
    policy = canary.policy

    def render(console: Console) -> None:
        console.print(
            f"{short(canary.adapter_digest)} on {policy.percent} % of the callers from generation {canary.generation} on,"
            f" since {_when(canary.start_time)}: [bold]{state}[/]",
            highlight=False,
        )
        if canary.reason:
            console.print(f"{_when(canary.end_time)}: {canary.reason}", highlight=False)
        columns = ("", "callers", "calls", "failed", "first token", "each further one")
        arms = (("canary", canary.canary), ("what serves", canary.incumbent))
        console.print(table("medians", columns, [_row(name, arm) for name, arm in arms]))
        console.print(
            f"decided after {policy.min_calls} calls of each, or {policy.max_seconds} s; at most"
            f" {policy.max_error_rate_increase:g} more of them failed, and {policy.max_latency_ratio:g} times as long",
            highlight=False,
        )

    return render


def _row(name: str, arm: registry_pb2.CanaryArm) -> tuple[object, ...]:
    first = f"{arm.first_token_seconds:.3f} s" if arm.HasField("first_token_seconds") else "-"
    further = f"{arm.token_seconds:.3f} s" if arm.HasField("token_seconds") else "-"
    return name, arm.callers, arm.calls, arm.errors, first, further


def _when(moment: Timestamp) -> str:
    return moment.ToDatetime().isoformat(sep=" ", timespec="seconds")
