"""`tailor specialist`: define, change, show and delete specialists, and rank their adapters."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import tomli_w
import typer

from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import registry_pb2, registry_pb2_grpc
from tailor.api.registry.v1.registry_pb2 import GetSpecialistResponse, ReplicaState
from tailor.cli.calls import REASON_SECONDS, adapter_digest
from tailor.cli.definitions import list_set_fields, read_definition, to_fields
from tailor.cli.figures import describe_gate
from tailor.cli.messages import to_dict
from tailor.cli.options import Reason, SpecialistName, listed
from tailor.cli.output import short
from tailor.cli.session import CommandSession
from tailor.cli.tables import Fields, emit_list, emit_pages, item_table
from tailor.codec import decode, encode
from tailor.columns import Digest, columns
from tailor.events.envelope import new_id
from tailor.list_columns import SPECIALISTS, describe_serving, list_leaderboard
from tailor.pipelines import describe_pipeline
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
    session.output.emit(answer, text)


@listed
def list_specialists(session: CommandSession, request: registry_pb2.ListSpecialistsRequest) -> None:
    """List specialists and the adapter that serves each."""
    shown = SPECIALISTS.pick("name, base, pipeline, serves, generation")
    emit_pages(session, session.connections.registry.ListSpecialists, request, shown)


def show(
    session: CommandSession,
    name: SpecialistName,
    as_toml: Annotated[
        bool, typer.Option("--toml", help="Only the definition, in TOML, for `tailor specialist update`.")
    ] = False,
) -> None:
    """Show a specialist's definition, the adapter that serves it, and the replicas that have it."""
    answer = session.connections.registry.GetSpecialist(registry_pb2.GetSpecialistRequest(name=name))
    if as_toml:
        fields = to_fields(answer.specialist)
        session.output.emit(fields, tomli_w.dumps(fields).removesuffix("\n"))
        return
    session.output.emit(answer, _describe(answer))


def define(
    registry: registry_pb2_grpc.RegistryServiceStub, definition: models_pb2.SpecialistChanged
) -> registry_pb2.CreateSpecialistResponse:
    """Create the specialist. Idempotent: the same definition returns the existing one."""
    request = registry_pb2.CreateSpecialistRequest(specialist=definition, request_id=new_id("req"))
    return registry.CreateSpecialist(request)


def _describe_serving(answer: registry_pb2.GetSpecialistResponse) -> str:
    decision, canary = answer.serving.decision, answer.serving.decision.canary
    model = describe_serving(answer)
    override = ", by an override of the gate" if decision.overridden else ""
    tried = f"; {canary.percent} % of the callers get {short(canary.adapter_digest)}" if canary.percent else ""
    return f"{short(model) if isinstance(model, Digest) else model}, generation {decision.generation}{override}{tried}"


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
    GetSpecialistResponse,
    "specialist=specialist.name, revision=specialist.revision, description=specialist.description",
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


def _describe(answer: registry_pb2.GetSpecialistResponse) -> Iterator[Any]:
    yield Fields(FACTS, answer)
    yield describe_gate(answer.specialist.gate)
    yield tomli_w.dumps(list_settings(answer.specialist))
    replicas = columns(
        ReplicaState,
        "replica",
        (
            f"serves generation {answer.serving.decision.generation}",
            lambda replica: "yes" if replica.serving else replica.reason or "not yet",
        ),
        "last seen=seen_time",
    )
    title = f"ready replicas, rollout {'finished' if answer.serving.finished else 'not finished'}"
    yield item_table(title, replicas, answer.serving.rollout)


# Fields that results before and after a change cannot be compared across.
MEASURED = ("gate", "metrics", "evaluation", "sampling")

DefinitionFile = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The whole definition in TOML.")]


def update(session: CommandSession, file: DefinitionFile) -> None:
    """Replace a specialist's definition by FILE, which has the fields of `tailor specialist create`.

    `tailor specialist show NAME --toml` writes such a file; `tailor specialist diff FILE` shows first what would change. A field that FILE
    does not set returns to its default. With `revision` in FILE, the update fails if that is not the current one.
    """
    answer = _update(session.connections.registry, read_definition(file), validate_only=False)
    specialist = answer.specialist

    revision = f"Specialist {specialist.name} has revision {specialist.revision}."
    session.output.emit(answer, list_changes(answer.changes), revision)


def diff(session: CommandSession, file: DefinitionFile) -> None:
    """Show field by field what `tailor specialist update FILE` would change. Saves nothing, and checks FILE as the update does."""
    answer = _update(session.connections.registry, read_definition(file), validate_only=True)
    session.output.emit({"changes": answer.changes}, list_changes(answer.changes))


def delete(
    session: CommandSession,
    name: SpecialistName,
    reason: Reason = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a specialist: it stops serving, building and training. Idempotent.

    Its documents, datasets, adapters and drafts stay; `tailor erasure create` erases documents. The name can be created again.
    """
    if not yes:
        typer.confirm(f"Callers of {name} will get an error at once. Delete it?", abort=True, err=True)
    request = registry_pb2.DeleteSpecialistRequest(name=name, reason=reason)
    answer = session.connections.registry.DeleteSpecialist(request, timeout=REASON_SECONDS)
    text = f"Specialist {name} is deleted." if answer.deleted else f"Specialist {name} was deleted before."
    kept = "Its documents, datasets, adapters and drafts stay; `tailor erasure create` erases documents."
    session.output.emit(answer, f"{text} {kept}")


CHANGES = columns(registry_pb2.FieldChange, "field, now=before or 'not set', new=after or 'not set'")


def list_changes(changes: Sequence[registry_pb2.FieldChange]) -> Iterator[Any]:
    """A row per changed field; says if results of before cannot be compared with those of after."""
    yield item_table("", CHANGES, changes) if changes else "No field differs."
    if any(change.field.startswith(MEASURED) for change in changes):
        yield "Evaluations by the new definition cannot be compared with earlier ones; their reports say so."


def _update(
    registry: registry_pb2_grpc.RegistryServiceStub, definition: models_pb2.SpecialistChanged, *, validate_only: bool
) -> registry_pb2.UpdateSpecialistResponse:
    if not definition.revision:
        current = registry.GetSpecialist(registry_pb2.GetSpecialistRequest(name=definition.name))
        definition.revision = current.specialist.revision
    request = registry_pb2.UpdateSpecialistRequest(specialist=definition, validate_only=validate_only)
    return registry.UpdateSpecialist(request)


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
