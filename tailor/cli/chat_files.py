"""Chats from JSON Lines, Parquet and a hub. Only chats are read; nothing is checked that synthetic checks."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tailor.errors import FailedPrecondition, InvalidArgument, Reason

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
