"""`tailor adapter export`: an adapter as a folder that peft, transformers and vLLM load elsewhere."""

import hashlib
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from tailor.api.registry.v1 import registry_pb2, registry_pb2_grpc
from tailor.api.training.v1 import training_pb2
from tailor.cli.output import short
from tailor.cli.session import CommandSession
from tailor.errors import FailedPrecondition, InvalidArgument, NotFound, Reason, Unavailable


def export(
    session: CommandSession,
    name: Annotated[
        str,
        typer.Argument(
            metavar="DIGEST_OR_SPECIALIST",
            help="An adapter's digest or its first 6 digits, or a specialist that an adapter serves.",
        ),
    ],
    folder: Annotated[Path, typer.Argument(file_okay=False, help="The folder to write, new or empty.")],
    *,
    merged: Annotated[bool, typer.Option("--merged", help="Write the whole model, merged into its base.")] = False,
) -> None:
    """Write an adapter as a folder that peft, transformers and vLLM load elsewhere, after the service read it back and measured it."""
    target = folder.resolve()
    if target.exists() and any(target.iterdir()):
        raise InvalidArgument(Reason.CANNOT_WRITE, f"{folder} is not empty. Choose another folder.")
    request = _find_adapter(session.connections.registry, name)
    request.merged = merged
    responses = session.connections.training.ExportAdapter(request)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as partial:
            files = receive_files(responses, Path(partial, target.name), session.output.note)
            Path(partial, target.name).rename(target)
    except OSError as error:
        raise InvalidArgument(
            Reason.CANNOT_WRITE, f"{folder} cannot be written: {error.strerror}. Choose another folder."
        ) from None
    text = f"{short(request.adapter_digest)} is in {folder}: {len(files)} files. Its README.md says how to load it."
    session.output.emit({"adapter_digest": request.adapter_digest, "folder": str(folder), "files": files}, text)


def _find_adapter(registry: registry_pb2_grpc.RegistryServiceStub, name: str) -> training_pb2.ExportAdapterRequest:
    """The adapter of this digest, or that serves this specialist. Raises FailedPrecondition (NO_ADAPTER, ADAPTER_RETIRED)."""
    request, digits = training_pb2.ExportAdapterRequest(), name
    with suppress(NotFound):
        decision = registry.GetSpecialist(registry_pb2.GetSpecialistRequest(name=name)).serving.decision
        if not decision.adapter_digest:
            raise FailedPrecondition(
                Reason.NO_ADAPTER, f"No adapter serves {name}. `tailor adapter list` lists those to name."
            )
        request.generation, digits = decision.generation, decision.adapter_digest
    item = registry.GetAdapter(registry_pb2.GetAdapterRequest(digest=digits)).adapter
    if item.state == registry_pb2.ADAPTER_STATE_RETIRED:
        raise FailedPrecondition(
            Reason.ADAPTER_RETIRED,
            "The adapter is retired: it was trained on a document that has been erased. Build and train again, then export the new one.",
        )
    request.adapter_digest = item.adapter.digest
    return request


def receive_files(
    responses: Iterable[training_pb2.ExportAdapterResponse], folder: Path, note: Callable[[str], None]
) -> list[training_pb2.ExportedFile]:
    """Write the streamed files into a new folder, and read them back. Returns their list.

    Raises Unavailable (CORRUPT_OBJECT) if a file is not what the list says, and OSError.
    """
    folder.mkdir()
    files: list[training_pb2.ExportedFile] = []
    for response in responses:
        if response.step:
            note(response.step)
        files.extend(response.files)
        if response.chunk:
            with (folder / Path(response.name).name).open("ab") as written:
                written.write(response.chunk)
    for listed in files:
        path = folder / Path(listed.name).name
        path.touch()
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != listed.sha256:
                raise Unavailable(Reason.CORRUPT_OBJECT, f"{path.name} was damaged on its way. Repeat the command.")
    return files
