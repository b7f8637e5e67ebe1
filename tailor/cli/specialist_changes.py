"""Commands that change a specialist's definition, or show what would change."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import registry_pb2, registry_pb2_grpc
from tailor.cli.calls import REASON_SECONDS, unary
from tailor.cli.columns import columns, item_table
from tailor.cli.definitions import read_definition
from tailor.cli.messages import to_dict
from tailor.cli.output import shows
from tailor.cli.session import CommandSession

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

    def render(console: Console) -> None:
        print_changes(console, list(answer.changes))
        console.print(f"Specialist {specialist.name} has revision {specialist.revision}.")

    session.output.emit(to_dict(answer), render)


def diff(session: CommandSession, file: DefinitionFile) -> None:
    """Show field by field what `tailor specialist update FILE` would change. Saves nothing, and checks FILE as the update does."""
    answer = _update(session.connections.registry, read_definition(file), validate_only=True)
    session.output.emit(
        {"changes": [to_dict(change) for change in answer.changes]},
        lambda console: print_changes(console, list(answer.changes)),
    )


def delete(
    session: CommandSession,
    name: Annotated[str, typer.Argument(help="The specialist's name.")],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why. Stays on record, without personal data.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a specialist: it stops serving, building and training. Idempotent.

    Its documents, datasets, adapters and drafts stay; `tailor erasure create` erases documents. The name can be created again.
    """
    if not yes:
        typer.confirm(f"Callers of {name} will get an error at once. Delete it?", abort=True, err=True)
    request = registry_pb2.DeleteSpecialistRequest(name=name, reason=reason)
    answer = unary("registry", session.connections.registry.DeleteSpecialist, request, REASON_SECONDS)
    text = f"Specialist {name} is deleted." if answer.deleted else f"Specialist {name} was deleted before."
    kept = "Its documents, datasets, adapters and drafts stay; `tailor erasure create` erases documents."
    session.output.emit(to_dict(answer), shows(f"{text} {kept}"))


CHANGES = columns(
    "field", ("now", lambda change: change.before or "not set"), ("new", lambda change: change.after or "not set")
)


def print_changes(console: Console, changes: list[registry_pb2.FieldChange]) -> None:
    """A row per changed field; says if results of before cannot be compared with those of after."""
    if not changes:
        console.print("No field differs.")
        return
    console.print(item_table("", CHANGES, changes))
    if any(change.field.startswith(MEASURED) for change in changes):
        console.print("Evaluations by the new definition cannot be compared with earlier ones; their reports say so.")


def _update(
    registry: registry_pb2_grpc.RegistryServiceStub,
    definition: models_pb2.SpecialistChanged,
    *,
    validate_only: bool,
) -> registry_pb2.UpdateSpecialistResponse:
    if not definition.revision:
        current = unary("registry", registry.GetSpecialist, registry_pb2.GetSpecialistRequest(name=definition.name))
        definition.revision = current.specialist.revision
    request = registry_pb2.UpdateSpecialistRequest(specialist=definition, validate_only=validate_only)
    return unary("registry", registry.UpdateSpecialist, request)
