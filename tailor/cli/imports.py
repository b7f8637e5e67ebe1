"""`tailor dataset import`, `imports` and `forget-import`: chat data from elsewhere."""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from tailor.api.synthetic.v1 import imports_pb2, imports_pb2_grpc
from tailor.cli.chat_files import Chat, check_files, read_chats
from tailor.cli.hub_data import PREFIX, download
from tailor.cli.progress import wait_out_errors
from tailor.cli.session import CommandSession
from tailor.cli.tables import emit_list
from tailor.columns import columns
from tailor.errors import TailorError

# An import is as long as its rows need at the barrier.
IMPORT_SECONDS = 12 * 3600.0
CHUNK_ROWS = 500
CHUNK_CHARS = 1_000_000
NOTE_ROWS = 5_000
Note = Callable[[str], None]


def import_(
    session: CommandSession,
    source: Annotated[str, typer.Argument(help="FILE.jsonl, FILE.parquet, or hub:OWNER/NAME[:SPLIT].")],
    *,
    name: Annotated[str, typer.Option(help="Its name, which `rows.replay` of a specialist uses.")],
    licence: Annotated[str, typer.Option(help="SPDX licence, such as CC-BY-4.0 or LicenseRef-internal.")],
    share: Annotated[int, typer.Option(min=1, max=100, help="Percentage of its rows to use.")] = 100,
    specialist: Annotated[
        list[str] | None, typer.Option(help="A specialist that may use it; repeatable. By default, all.")
    ] = None,
) -> None:
    """Import chats through the barrier, to mix them into datasets against forgetting.

    A row has `messages` as in OpenAI's chats, or `prompt` and `answer`. Repeat the command after an interruption: it goes on where it was.
    """
    header = imports_pb2.ImportHeader(name=name, licence=licence, share_percent=share, specialists=specialist or ())
    with tempfile.TemporaryDirectory(prefix="tailor-import-") as folder:
        paths = download(source, Path(folder)) if source.startswith(PREFIX) else [Path(source)]
        header.source = source if source.startswith(PREFIX) else paths[0].name
        header.request_id = f"imp_{check_files(paths)}"

        def note(text: str) -> None:
            session.output.note(text)

        answer = wait_out_errors(lambda: send(session.connections.imports, header, read_chats(paths), note), note)
    item = getattr(answer, "import")
    state = "imported" if answer.created else "was imported before"
    text = f"{item.name} {state}: {item.rows:,} rows. Rejected: {_rejected(item) or 'none'}."
    session.output.emit(answer, text)


def imports(session: CommandSession) -> None:
    """List imports with licences, shares and rows."""
    answer = session.connections.imports.ListImports(imports_pb2.ListImportsRequest())
    emit_list(session, answer.imports, COLUMNS, document=answer)


def forget_import(session: CommandSession, name: Annotated[str, typer.Argument(help="The import's name.")]) -> None:
    """Delete an import. Datasets that exist keep its rows until the next build."""
    answer = session.connections.imports.ForgetImport(imports_pb2.ForgetImportRequest(name=name))
    session.output.emit(answer, f"{name} is forgotten.")


def send(
    imports: imports_pb2_grpc.ImportServiceStub, header: imports_pb2.ImportHeader, chats: Iterable[Chat], note: Note
) -> imports_pb2.ImportDatasetResponse:
    """Stream the header and the chats in chunks. Blocks. Raises what reading the chats raises, or the service's TailorError."""
    stream = _Stream(header, chats, note)
    try:
        return imports.ImportDataset(iter(stream), timeout=IMPORT_SECONDS)
    finally:
        # gRPC swallows what its request iterator raises, and reports a cancelled call.
        if stream.error is not None:
            raise stream.error


class _Stream:
    """The requests of one call. Keeps the error that ended them."""

    def __init__(self, header: imports_pb2.ImportHeader, chats: Iterable[Chat], note: Note) -> None:
        self.error: TailorError | None = None
        self._header = header
        self._chats = chats
        self._note = note

    def __iter__(self) -> Iterator[imports_pb2.ImportDatasetRequest]:
        yield imports_pb2.ImportDatasetRequest(header=self._header)
        sent = 0
        try:
            for chunk in chunks(self._chats):
                yield imports_pb2.ImportDatasetRequest(chunk=chunk)
                if sent // NOTE_ROWS != (sent + len(chunk.rows)) // NOTE_ROWS:
                    self._note(f"{sent + len(chunk.rows):,} rows sent")
                sent += len(chunk.rows)
        except TailorError as error:
            self.error = error
            raise


def chunks(chats: Iterable[Chat]) -> Iterator[imports_pb2.ImportChunk]:
    """Chunks within the service's limits. The same chats always give the same chunks, so that an import can go on."""
    chunk, chars = imports_pb2.ImportChunk(), 0
    for chat in chats:
        length = sum(len(content) for _, content in chat)
        if chunk.rows and (len(chunk.rows) == CHUNK_ROWS or chars + length > CHUNK_CHARS):
            yield chunk
            chunk, chars = imports_pb2.ImportChunk(), 0
        messages = [imports_pb2.ImportMessage(role=role, content=content) for role, content in chat]
        chunk.rows.add(messages=messages)
        chars += length
    if chunk.rows:
        yield chunk


def _rejected(item: imports_pb2.DatasetImport) -> str:
    return ", ".join(f"{reason.replace('_', ' ')} {item.rejected[reason]:,}" for reason in sorted(item.rejected))


COLUMNS = columns(
    imports_pb2.DatasetImport,
    "import=name, licence, share=share_percent|{} %, rows|{:,}",
    ("rejected", _rejected),
    "source, specialists=specialists or 'all'",
    ("state", lambda item: "finished" if item.sha256 else "not finished; repeat the import"),
)
