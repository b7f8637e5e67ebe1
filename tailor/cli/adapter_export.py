"""`tailor adapter export`: an adapter as a folder that peft, transformers and vLLM load elsewhere."""

import hashlib
import shutil
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
            help="The adapter's digest, or at least its first 6 digits, or the specialist that it serves.",
        ),
    ],
    folder: Annotated[Path, typer.Argument(file_okay=False, help="The folder to write, new or empty.")],
    *,
    merged: Annotated[
        bool, typer.Option("--merged", help="Write the whole model, with the adapter merged into its base.")
    ] = False,
) -> None:
    """Write an adapter as a folder that peft, transformers and vLLM load elsewhere, with its tokenizer and a model card.

    The training service reads the folder back in a fresh process and compares what it computes with what the trained adapter computed.
    """
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
    size = sum(file.size_bytes for file in files) / 1e6
    text = f"{short(request.adapter_digest)} is in {folder}: {len(files)} files, {size:.0f} MB. Its README.md says how to load it."
    document = {"adapter_digest": request.adapter_digest, "folder": str(folder), "files": files}
    session.output.emit(document, text)


def _find_adapter(registry: registry_pb2_grpc.RegistryServiceStub, name: str) -> training_pb2.ExportAdapterRequest:
    """The adapter of this digest, or that serves the specialist of this name.

    Raises FailedPrecondition (NO_ADAPTER, ADAPTER_RETIRED), and what the registry raises for unknown and ambiguous digits.
    """
    request = training_pb2.ExportAdapterRequest()
    digits = name
    with suppress(NotFound):
        decision = registry.GetSpecialist(registry_pb2.GetSpecialistRequest(name=name)).serving.decision
        if not decision.adapter_digest:
            raise FailedPrecondition(
                Reason.NO_ADAPTER,
                f"{name} is served by its base. `tailor adapter promote {name} ADAPTER` changes that.",
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

    Raises Unavailable (CORRUPT_OBJECT) if a file is not what the list says, InvalidArgument (CANNOT_WRITE) without space, and OSError.
    """
    folder.mkdir()
    files: dict[str, training_pb2.ExportedFile] = {}
    for response in responses:
        if response.step:
            note(response.step)
        if response.files:
            files = {file.name: file for file in response.files}
            needed, free = sum(file.size_bytes for file in files.values()), shutil.disk_usage(folder).free
            for name in files:
                (folder / name).touch()
            if needed > free:
                raise InvalidArgument(
                    Reason.CANNOT_WRITE,
                    f"The files need {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free. Choose another folder.",
                )
        if response.chunk:
            with (folder / files[response.name].name).open("ab") as file:
                file.write(response.chunk)
    for name, listed in files.items():
        with (folder / name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != listed.sha256:
                raise Unavailable(Reason.CORRUPT_OBJECT, f"{name} was damaged on its way. Repeat the command.")
    return list(files.values())
