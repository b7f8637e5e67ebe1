"""`tailor dataset import`, `imports` and `forget-import`: chat data from elsewhere."""

import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Annotated, Any

import typer

from tailor.api.synthetic.v1 import imports_pb2, imports_pb2_grpc
from tailor.cli.hub_files import download_file, hub_address, open_url, status_of
from tailor.cli.options import listed
from tailor.cli.progress import wait_out_errors
from tailor.cli.session import CommandSession
from tailor.cli.tables import emit_pages
from tailor.columns import columns
from tailor.errors import FailedPrecondition, InvalidArgument, NotFound, Reason, TailorError, Unavailable

Chat = list[tuple[str, str]]

MAX_FILE_BYTES = 4 * 1024**3
# A longer row would not fit into a message; synthetic refuses much shorter ones.
MAX_CHAT_CHARS = 1_000_000
BATCH_ROWS = 500
HASH_BYTES = 1024 * 1024
ANSWERS = ("answer", "completion", "response")


def read_chats(paths: Sequence[Path]) -> Iterator[Chat]:
    """Stream the chats of all files. Raises InvalidArgument (INVALID_FILE, TOO_LONG) with the row's number."""
    for path in paths:
        records = _parquet(path) if path.suffix == ".parquet" else _lines(path)
        for number, record in enumerate(records, start=1):
            yield _to_chat(record, f"{path.name}, row {number}")


def check_files(paths: Sequence[Path]) -> str:
    """The SHA-256 over all files. Raises InvalidArgument if one cannot be read, is too large, or has another format."""
    digest = hashlib.sha256()
    for path in paths:
        if path.suffix not in (".jsonl", ".parquet"):
            raise InvalidArgument(Reason.INVALID_FILE, f"{path} must end with .jsonl or .parquet, or begin with hub:.")
        try:
            _add_file(digest, path)
        except OSError as error:
            raise InvalidArgument(Reason.INVALID_FILE, f"{path} cannot be read: {error.strerror}.") from None
    return digest.hexdigest()


def _add_file(digest: Any, path: Path) -> None:
    if path.stat().st_size > MAX_FILE_BYTES:
        raise InvalidArgument(
            Reason.INVALID_FILE, f"{path} is larger than {MAX_FILE_BYTES} bytes. Import a part of it."
        )
    with path.open("rb") as file:
        while block := file.read(HASH_BYTES):
            digest.update(block)


def _lines(path: Path) -> Iterator[Any]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield json.loads(line)
            except ValueError:
                raise InvalidArgument(Reason.INVALID_FILE, f"{path.name}, line {number} is not JSON.") from None


def _parquet(path: Path) -> Iterator[Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise FailedPrecondition(
            Reason.NOT_INSTALLED, "Parquet needs the package pyarrow. Install it, or convert the file to JSON Lines."
        ) from None
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            wanted = [name for name in ("messages", "prompt", *ANSWERS) if name in file.schema_arrow.names]
            for batch in file.iter_batches(BATCH_ROWS, columns=wanted):
                yield from batch.to_pylist()
    except pyarrow.ArrowException:
        raise InvalidArgument(Reason.INVALID_FILE, f"{path.name} is not Parquet.") from None


def _to_chat(record: Any, place: str) -> Chat:
    messages = _messages(record)
    if messages is None:
        raise InvalidArgument(
            Reason.INVALID_FILE,
            f"{place}: needs `messages` with `role` and `content`, or `prompt` and `answer`, as texts.",
        )
    if sum(len(content) for _, content in messages) > MAX_CHAT_CHARS:
        raise InvalidArgument(Reason.TOO_LONG, f"{place}: has more than {MAX_CHAT_CHARS:,} characters.")
    return messages


def _messages(record: Any) -> Chat | None:
    """The chat of a record; None for another shape."""
    if not isinstance(record, Mapping):
        return None
    if isinstance(record.get("messages"), list):
        pairs = [(_field(message, "role"), _field(message, "content")) for message in record["messages"]]
    else:
        answers = [record[name] for name in ANSWERS if isinstance(record.get(name), str)]
        pairs = [("user", record.get("prompt")), ("assistant", answers[0] if answers else None)]
    chat = [(role, content) for role, content in pairs if isinstance(role, str) and isinstance(content, str)]
    return chat if len(chat) == len(pairs) else None


def _field(message: Any, name: str) -> Any:
    return message.get(name) if isinstance(message, Mapping) else None


PREFIX = "hub:"
NAME = re.compile(r"hub:(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(:(?P<split>[\w.-]+))?")


def download(source: str, folder: Path) -> list[Path]:
    """Download the Parquet files of `hub:OWNER/NAME[:SPLIT]`; the split is `train` by default. Blocks.

    Raises InvalidArgument (INVALID_SOURCE), NotFound (UNKNOWN_DATASET), Unavailable (HUB_UNAVAILABLE) without network.
    """
    match = NAME.fullmatch(source)
    if match is None:
        raise InvalidArgument(Reason.INVALID_SOURCE, "hub: needs OWNER/NAME, optionally with :SPLIT.")
    try:
        with open_url(f"{hub_address()}/api/datasets/{match['repo']}/parquet") as response:
            urls = _find_urls(json.load(response), match["split"] or "train", source)
        return [download_file(url, folder / f"{number:05d}.parquet") for number, url in enumerate(urls)]
    except (OSError, HTTPException, ValueError) as error:
        raise _to_error(error, source) from None


def _find_urls(listing: Any, split: str, source: str) -> list[str]:
    """The addresses of a split's files, in the first configuration that has it; `default` goes first."""
    configurations = sorted(listing.items(), key=lambda item: item[0] != "default") if isinstance(listing, dict) else []
    for _, splits in configurations:
        if isinstance(splits, dict) and splits.get(split):
            return [str(url) for url in splits[split]]
    known = sorted({name for _, splits in configurations if isinstance(splits, dict) for name in splits})
    raise NotFound(Reason.UNKNOWN_DATASET, f"{source} has no split {split}. It has: {', '.join(known) or 'none'}.")


def _to_error(error: Exception, source: str) -> TailorError:
    if status_of(error) in (401, 403, 404):
        return NotFound(
            Reason.UNKNOWN_DATASET, f"The hub does not show {source} as Parquet. Private data needs HF_TOKEN."
        )
    return Unavailable(
        Reason.HUB_UNAVAILABLE,
        f"The hub could not be read ({type(error).__name__}). Check the network, or download the data and import the file.",
    )


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


@listed
def imports(session: CommandSession, request: imports_pb2.ListImportsRequest) -> None:
    """List imports with licences, shares and rows."""
    emit_pages(session, session.connections.imports.ListImports, request, COLUMNS)


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
