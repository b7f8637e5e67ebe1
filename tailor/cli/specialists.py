"""`tailor specialist`: define, change, show and delete specialists."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import tomli_w
import typer
from rich.console import Console

from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import registry_pb2, registry_pb2_grpc
from tailor.cli.calls import pages, unary
from tailor.cli.columns import columns, emit_items, print_fields
from tailor.cli.definitions import list_set_fields, read_definition, to_fields
from tailor.cli.figures import describe_gate
from tailor.cli.messages import to_dict
from tailor.cli.output import short, shows, table
from tailor.cli.session import CommandSession
from tailor.cli.whole_words import Digest
from tailor.codec import decode, encode
from tailor.events.envelope import new_id
from tailor.pipelines import describe_pipeline, list_recipes
from tailor.values import EvaluationPolicy, RowPolicy, SamplingDefaults
from tailor.wire import to_pipeline


def create(
    session: CommandSession,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The definition in TOML.")],
) -> None:
    """Define a specialist. Idempotent: repeating the same definition has no effect.

    FILE must set `name`, `base` and `recipe`. docs/registry/specialist.toml is an example with every
    field and its default.
    """
    answer = define(session.connections.registry, read_definition(file))
    name = answer.specialist.name
    text = f"Specialist {name} created." if answer.created else f"Specialist {name} exists with this definition."
    session.output.emit(to_dict(answer), shows(text))


def list_specialists(session: CommandSession) -> None:
    """List specialists and the adapter that serves each."""
    registry = session.connections.registry
    request = registry_pb2.ListSpecialistsRequest()
    items = list(pages("registry", registry.ListSpecialists, request, "specialists"))
    emit_items(session, "specialists", items, COLUMNS)


def show(
    session: CommandSession,
    name: Annotated[str, typer.Argument(help="The specialist's name.")],
    as_toml: Annotated[
        bool, typer.Option("--toml", help="Only the definition, in TOML, for `tailor specialist update`.")
    ] = False,
) -> None:
    """Show a specialist's definition, the adapter that serves it, and the replicas that have it."""
    answer = unary("registry", session.connections.registry.GetSpecialist, registry_pb2.GetSpecialistRequest(name=name))
    if as_toml:
        fields = to_fields(answer.specialist)
        session.output.emit(fields, lambda console: console.out(tomli_w.dumps(fields), end="", highlight=False))
        return
    session.output.emit(to_dict(answer), lambda console: _print(console, answer))


def define(
    registry: registry_pb2_grpc.RegistryServiceStub, definition: models_pb2.SpecialistChanged
) -> registry_pb2.CreateSpecialistResponse:
    """Create the specialist. Idempotent: the same definition returns the existing one."""
    request = registry_pb2.CreateSpecialistRequest(specialist=definition, request_id=new_id("req"))
    return unary("registry", registry.CreateSpecialist, request)


def _serving(item: registry_pb2.GetSpecialistResponse) -> object:
    decision = item.serving.decision
    if not decision.generation or decision.ended:
        return "nothing yet"
    return Digest(decision.adapter_digest) if decision.adapter_digest else "the base"


COLUMNS = columns(
    "name=specialist.name",
    "base=specialist.base",
    ("pipeline", lambda item: list_recipes(to_pipeline(item.specialist))),
    ("serves", _serving),
    "generation=serving.decision.generation",
)


def _describe_serving(answer: registry_pb2.GetSpecialistResponse) -> str:
    decision, canary = answer.serving.decision, answer.serving.decision.canary
    override = ", by an override of the gate" if decision.overridden else ""
    tried = f"; {canary.percent} % of the callers get {short(canary.adapter_digest)}" if canary.percent else ""
    return f"{_serving(answer)}, generation {decision.generation}{override}{tried}"


def _describe_approval(specialist: models_pb2.SpecialistChanged) -> str:
    waits = specialist.promotion == models_pb2.PROMOTION_MODE_APPROVAL
    return "waits for approval; see `tailor adapter approvals`" if waits else "automatic"


def _describe_budget(specialist: models_pb2.SpecialistChanged) -> str:
    budget = specialist.monthly_budget
    return f"{budget:,.2f} a month; see `tailor specialist bill {specialist.name}`" if budget else ""


def _describe_hours(specialist: models_pb2.SpecialistChanged) -> str:
    hours = specialist.max_training_hours
    return f"above {hours:g} device hours wait for `tailor run approve RUN`" if hours else ""


def _describe_canary(specialist: models_pb2.SpecialistChanged) -> str:
    percent = specialist.canary.percent
    return f"first on {percent} % of the callers; `tailor canary show {specialist.name}`" if percent else ""


KEPT = "stored, anonymised, for 30 days"
PRIVATE = "surrogates replace personal data, separately for each call"
FACTS = columns(
    "specialist=specialist.name",
    "revision=specialist.revision",
    "description=specialist.description",
    "base=specialist.base",
    ("pipeline", lambda answer: describe_pipeline(to_pipeline(answer.specialist))),
    "next round=round.sentence",
    ("served by", _describe_serving),
    ("house terms", lambda answer: len(answer.specialist.house_terms)),
    ("draft texts", lambda answer: KEPT if answer.specialist.keep_drafts else "not stored"),
    ("prompts", lambda answer: PRIVATE if answer.specialist.private_prompts else "reach the model unchanged"),
    ("promotion", lambda answer: _describe_approval(answer.specialist)),
    ("budget", lambda answer: _describe_budget(answer.specialist)),
    ("runs", lambda answer: _describe_hours(answer.specialist)),
    ("canary", lambda answer: _describe_canary(answer.specialist)),
)


def list_settings(specialist: models_pb2.SpecialistChanged) -> dict[str, Any]:
    """The tables of a definition as in its TOML file, with the values that a table without them has."""
    policies = {
        "filters": {name: value for name, value in to_dict(specialist.filters).items() if value},
        "rows": asdict(decode(RowPolicy, specialist.rows)),
        "sampling": asdict(decode(SamplingDefaults, specialist.sampling)),
        "evaluation": list_set_fields(
            encode(models_pb2.EvaluationPolicy, decode(EvaluationPolicy, specialist.evaluation))
        ),
    }
    fields = {name: value for name, value in to_fields(specialist).items() if name in ("metrics", "judging")}
    return {name: table for name, table in {**policies, **fields}.items() if table}


def _print(console: Console, answer: registry_pb2.GetSpecialistResponse) -> None:
    print_fields(console, answer, FACTS)
    for line in describe_gate(answer.specialist.gate):
        console.print(line, highlight=False)
    console.out(tomli_w.dumps(list_settings(answer.specialist)), highlight=False)
    replicas = [
        (replica.replica, "yes" if replica.serving else replica.reason or "not yet", replica.seen_time.ToJsonString())
        for replica in answer.serving.rollout
    ]
    title = f"ready replicas, rollout {'finished' if answer.serving.finished else 'not finished'}"
    serves = f"serves generation {answer.serving.decision.generation}"
    console.print(table(title, ("replica", serves, "last seen"), replicas))
