"""`tailor canary`: try an adapter on a share of the callers."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.text import Text

from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.cli.adapters import expected_generation, wait_for_rollout
from tailor.cli.calls import adapter_digest
from tailor.cli.options import AdapterName, Generation, SpecialistName, Wait
from tailor.cli.output import short
from tailor.cli.session import CommandSession
from tailor.cli.tables import item_table
from tailor.columns import columns, moment, read
from tailor.errors import NotFound, Reason


def start(
    session: CommandSession,
    *,
    specialist: SpecialistName,
    adapter: AdapterName,
    generation: Generation = None,
    wait: Wait = False,
    percent: Annotated[
        int | None, typer.Option(min=1, max=99, help="Share of the API keys, in percent.", show_default="10")
    ] = None,
    min_calls: Annotated[
        int | None, typer.Option(min=1, help="Calls that each arm needs before a decision.", show_default="50")
    ] = None,
    max_seconds: Annotated[
        int | None,
        typer.Option(
            min=1, help="Withdraw the canary after this many seconds if there were fewer calls.", show_default="a day"
        ),
    ] = None,
    max_error_rate_increase: Annotated[
        float | None, typer.Option(min=0, max=1, help="Max increase of the share of failed calls.", show_default="0.02")
    ] = None,
    max_latency_ratio: Annotated[
        float | None,
        typer.Option(min=1, help="Max ratio of its median token latency to the incumbent's.", show_default="1.5"),
    ] = None,
    outcome: Annotated[
        str, typer.Option(help="Outcome of its drafts that decides too: edit_retention, satisfaction or minutes.")
    ] = "",
    min_reports: Annotated[
        int | None, typer.Option(min=10, help="Reports of the outcome that each arm needs.", show_default="20")
    ] = None,
    max_outcome_loss: Annotated[
        float | None,
        typer.Option(min=0, help="Max loss of the outcome: share of the draft, marks, or share of the minutes."),
    ] = None,
) -> None:
    """Serve an adapter that met the gate to a share of the callers. The specialist's `[canary]` table sets the defaults."""
    registry = session.connections.registry
    policy = models_pb2.CanaryPolicy(
        percent=percent or 0,
        min_calls=min_calls or 0,
        max_seconds=max_seconds or 0,
        max_error_rate_increase=max_error_rate_increase,
        max_latency_ratio=max_latency_ratio or 0,
        outcome=outcome,
        min_reports=min_reports or 0,
        max_outcome_loss=max_outcome_loss or 0,
    )
    request = registry_pb2.StartCanaryRequest(
        specialist=specialist,
        adapter_digest=adapter_digest(registry, adapter),
        expected_generation=expected_generation(registry, specialist, generation),
        policy=policy,
    )
    answer = registry.StartCanary(request)
    if wait:
        wait_for_rollout(registry, answer.serving)
    canary, now = answer.serving.canary, answer.serving.generation
    text = (
        f"{canary.percent} % of the callers of {specialist} get {short(canary.adapter_digest)} since generation {now}."
    )
    session.output.emit(answer, text)


def stop(
    session: CommandSession, specialist: SpecialistName, generation: Generation = None, wait: Wait = False
) -> None:
    """Withdraw the canary: the serving adapter serves all callers again."""
    registry = session.connections.registry
    expected = expected_generation(registry, specialist, generation)
    answer = registry.StopCanary(registry_pb2.StopCanaryRequest(specialist=specialist, expected_generation=expected))
    if wait:
        wait_for_rollout(registry, answer.serving)
    text = f"All callers of {specialist} get the same adapter since generation {answer.serving.generation}."
    session.output.emit(answer, text)


def show(session: CommandSession, specialist: SpecialistName) -> None:
    """Show the newest canary: the measurements of both arms, and its outcome."""
    registry = session.connections.registry
    answer = registry.GetSpecialist(registry_pb2.GetSpecialistRequest(name=specialist))
    if not answer.HasField("canary"):
        raise NotFound(
            Reason.NO_CANARY_YET,
            f"{specialist} has had no canary yet. `tailor canary start {specialist} ADAPTER` begins one.",
        )
    session.output.emit(answer.canary, _describe(answer.canary))


ARMS = columns(
    None,
    "=0, callers=1.callers, calls=1.calls, failed=1.errors",
    ("first token", lambda row: _describe_seconds(row[1], "first_token_seconds")),
    ("per further token", lambda row: _describe_seconds(row[1], "token_seconds")),
)


def _describe(canary: registry_pb2.Canary) -> Iterator[Any]:
    policy = canary.policy
    share = f"{short(canary.adapter_digest)} on {policy.percent} % of the callers since generation {canary.generation}"
    yield Text.assemble(f"{share} ({moment(canary.start_time)}): ", (str(read(canary, "state")), "bold"))
    if canary.reason:
        yield f"{moment(canary.end_time)}: {canary.reason}"
    yield item_table("medians", ARMS, [("canary", canary.canary), ("serving", canary.incumbent)])
    limits = f"error rate +{policy.max_error_rate_increase:g}, latency x{policy.max_latency_ratio:g}"
    yield f"decided after {policy.min_calls} calls of each arm, or {policy.max_seconds} s; limits: {limits}"
    if policy.outcome:
        yield _describe_outcome(canary)


def _describe_outcome(canary: registry_pb2.Canary) -> str:
    policy = canary.policy
    arms = [
        f"{arm.outcome:.2f} in {arm.reports} reports" if arm.HasField("outcome") else "no report"
        for arm in (canary.canary, canary.incumbent)
    ]
    return (
        f"{policy.outcome.replace('_', ' ')}: {arms[0]}, against {arms[1]}; decided from {policy.min_reports} reports of each arm, "
        f"max loss {policy.max_outcome_loss:g}"
    )


def _describe_seconds(arm: registry_pb2.CanaryArm, name: str) -> str:
    seconds = read(arm, name)
    return "-" if seconds == "" else f"{seconds:.3f} s"
