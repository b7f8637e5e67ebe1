"""`tailor specialist`: define, change, show and delete specialists."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import tomli_w
import typer
from rich.console import Console

from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import registry_pb2, registry_pb2_grpc
from tailor.cli.calls import pages, unary
from tailor.cli.columns import columns, emit_items
from tailor.cli.definitions import list_parameters, list_set_fields, read_definition, to_fields
from tailor.cli.figures import describe_gate
from tailor.cli.messages import to_dict
from tailor.cli.output import short, shows, table
from tailor.cli.session import CommandSession
from tailor.cli.whole_words import Digest
from tailor.events.envelope import new_id
from tailor.programmes import describe_programme, list_recipes
from tailor.wire import from_evaluation_policy, to_evaluation_policy, to_programme, to_row_policy, to_sampling
from tailor.words import RowPolicy, SamplingDefaults

# Fields that every specialist's summary of rows shows.
HELD_OUT = ("held_out_percent", "max_held_out_rows", "min_answer_tokens")


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
    ("programme", lambda item: list_recipes(to_programme(item.specialist))),
    ("serves", _serving),
    "generation=serving.decision.generation",
)


def _canary(decision: models_pb2.SpecialistServing) -> str:
    canary = decision.canary
    return f"; {canary.percent} % of the callers get {short(canary.adapter_digest)}" if canary.percent else ""


def _filters(filters: models_pb2.Filters) -> str:
    """The filters that are set, as in TOML."""
    fields = {name: value for name, value in to_dict(filters).items() if value}
    values = (f"{name} = {', '.join(value) if isinstance(value, list) else value}" for name, value in fields.items())
    return "; ".join(values) or "none"


def _rows(policy: RowPolicy) -> str:
    """The limits that are set, as in TOML, and what is held out."""
    defaults = RowPolicy()
    fields = {name: value for name, value in asdict(policy).items() if value != getattr(defaults, name)}
    held_out = (
        f"{policy.held_out_percent} % held out, at most {policy.max_held_out_rows:,} rows; "
        f"answers of at least {policy.min_answer_tokens} tokens"
    )
    limits = [f"{name} = {_toml(value)}" for name, value in fields.items() if name not in HELD_OUT]
    return "; ".join([*(limits or ["no limits"]), held_out])


def _sampling(sampling: SamplingDefaults) -> str:
    drawn = f"temperature {sampling.temperature:g}, top_p {sampling.top_p:g}" if sampling.temperature else "greedy"
    limit = f"at most {sampling.max_tokens:,} tokens" if sampling.max_tokens else "as long as the context allows"
    return f"{drawn}, repetition penalty {sampling.repetition_penalty:g}, {limit}"


def _metric(metric: models_pb2.MetricDefinition) -> str:
    kind = metric.kind if metric.kind != metric.name else ""
    parameters = (f"{name} = {json.dumps(value)}" for name, value in list_parameters(metric).items())
    details = ", ".join([*([kind] if kind else []), *parameters])
    return f"{metric.name} ({details})" if details else metric.name


def _evaluation(policy: models_pb2.EvaluationPolicy) -> str:
    """The fields that are set, as in TOML; long texts by their length."""
    shown = {
        "guidelines": f"{len(policy.guidelines):,} characters",
        "criteria": ", ".join(criterion.name for criterion in policy.criteria),
    }
    values = list_set_fields(from_evaluation_policy(to_evaluation_policy(policy))) | {
        name: value for name, value in shown.items() if getattr(policy, name)
    }
    return "; ".join(f"{name} = {_toml(tuple(v) if isinstance(v, list) else v)}" for name, v in values.items())


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ", ".join(item["name"] if isinstance(item, dict) else item for item in value)
    return str(value)


def _print(console: Console, answer: registry_pb2.GetSpecialistResponse) -> None:
    specialist = answer.specialist
    decision = answer.serving.decision
    generation = decision.generation
    console.print(f"[bold]{specialist.name}[/] revision {specialist.revision}: {specialist.description}")
    console.print(f"base {specialist.base}, {len(specialist.house_terms)} house terms")
    console.print(f"programme: {describe_programme(to_programme(specialist))}", highlight=False)
    if answer.HasField("round"):
        console.print(f"next round: {answer.round.sentence}", highlight=False)
    override = ", by an override of the gate" if decision.overridden else ""
    console.print(f"served by {_serving(answer)}, generation {generation}{override}{_canary(decision)}")
    texts = "stored, anonymised, for 30 days" if specialist.keep_drafts else "not stored"
    console.print(f"draft texts: {texts}")
    private = (
        "surrogates replace personal data, separately for each call"
        if specialist.private_prompts
        else "reach the model unchanged"
    )
    console.print(f"prompts: {private}")
    console.print(f"filters: {_filters(specialist.filters)}")
    console.print(f"rows: {_rows(to_row_policy(specialist.rows))}")
    console.print(f"answers: {_sampling(to_sampling(specialist.sampling))}")
    console.print(f"metrics: {'; '.join(map(_metric, specialist.metrics)) or 'the built-in ones'}")
    console.print(f"evaluation: {_evaluation(specialist.evaluation)}")
    if specialist.HasField("judging"):
        console.print(f"judging: {_judging(specialist.judging)}")
    waits = specialist.promotion == models_pb2.PROMOTION_MODE_APPROVAL
    console.print(f"promotion: {'waits for approval; see `tailor adapter approvals`' if waits else 'automatic'}")
    if specialist.monthly_budget:
        console.print(
            f"budget: {specialist.monthly_budget:,.2f} a month; see `tailor specialist bill {specialist.name}`"
        )
    if specialist.max_training_hours:
        console.print(f"runs above {specialist.max_training_hours:g} device hours wait for `tailor run approve RUN`")
    if specialist.HasField("canary"):
        console.print(
            f"canary first: {specialist.canary.percent} % of the callers; `tailor canary show {specialist.name}`"
        )
    for line in describe_gate(specialist.gate):
        console.print(line, highlight=False)
    replicas = [
        (replica.replica, "yes" if replica.serving else replica.reason or "not yet", replica.seen_time.ToJsonString())
        for replica in answer.serving.rollout
    ]
    title = f"ready replicas, rollout {'finished' if answer.serving.finished else 'not finished'}"
    console.print(table(title, ("replica", f"serves generation {generation}", "last seen"), replicas))


def _judging(policy: models_pb2.JudgingPolicy) -> str:
    names = ", ".join(criterion.name for criterion in policy.criteria)
    return (
        f"{policy.overlap_share * 100:g} % of the prompts by {policy.experts} experts, the others by one; {policy.drafts} drafts of each; "
        f"criteria: {names or 'the built-in ones'}; {'' if policy.draw_prompts else 'no '}prompts are drawn if few wait"
    )
