"""Imports, and the rows that they accept."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from services.synthetic.domain import Grounding, Row, fingerprint, text_id
from tailor.datasets import DatasetFile
from tailor.errors import InvalidArgument, Reason
from tailor.storage.ref import Ref

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
# A licence expression of SPDX: identifiers, joined by AND, OR and WITH.
LICENCE = re.compile(r"[A-Za-z0-9.+-]+( (AND|OR|WITH) [A-Za-z0-9.+-]+)*")
MAX_LICENCE_CHARS = 128
MAX_SOURCE_CHARS = 200
MAX_ROW_CHARS = 100_000
TASK = "example"

Messages = tuple[tuple[str, str], ...]


class RowRejection(StrEnum):
    """Why a row is not imported."""

    EMPTY = "empty"
    ROLES = "roles"
    TOO_LONG = "too_long"
    DUPLICATE = "duplicate"
    BARRIER = "barrier"
    ERASED = "erased"


@dataclass(frozen=True)
class ImportSpec:
    """The terms of an import. Raises InvalidArgument with a violation per invalid field."""

    name: str
    licence: str
    share_percent: int
    source: str = ""
    specialists: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        violations = {}
        if not NAME.fullmatch(self.name):
            violations["name"] = "must have 1 to 64 characters of a-z, 0-9 and '-'"
        if not LICENCE.fullmatch(self.licence) or len(self.licence) > MAX_LICENCE_CHARS:
            violations["licence"] = "must be an SPDX expression, such as CC-BY-4.0 or LicenseRef-internal"
        if not 1 <= self.share_percent <= 100:
            violations["share_percent"] = "must be 1 to 100"
        if len(self.source) > MAX_SOURCE_CHARS:
            violations["source"] = f"must have at most {MAX_SOURCE_CHARS} characters"
        if violations:
            raise InvalidArgument(Reason.INVALID_REQUEST, "The import is invalid.", field_violations=violations)

    def admits(self, specialist: str) -> bool:
        """True if the specialist may use it."""
        return not self.specialists or specialist in self.specialists


@dataclass(frozen=True)
class DatasetImport:
    """An import with its progress: `parts` chunks are stored; `file` is set when it is finished."""

    spec: ImportSpec
    request_id: str
    parts: int = 0
    rows: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    file: Ref | None = None
    created_at: datetime | None = None


@dataclass(frozen=True)
class ImportResult:
    """The result of a call. `created` is False if the same request had been finished before."""

    item: DatasetImport
    created: bool


def find_rejection(messages: Messages) -> RowRejection | None:
    """Why a chat cannot become a row: optionally a system message, then user and assistant in turn, the assistant last."""
    turns = messages[1:] if messages and messages[0][0] == "system" else messages
    if not turns or not all(content.strip() for _, content in messages):
        return RowRejection.EMPTY
    expected = ("user", "assistant") * (len(turns) // 2)
    if tuple(role for role, _ in turns) != expected:
        return RowRejection.ROLES
    return RowRejection.TOO_LONG if sum(len(content) for _, content in messages) > MAX_ROW_CHARS else None


def make_row(name: str, messages: Messages, key: str = "") -> Row:
    """The row of an accepted chat, without its tokens, which depend on the base. `key` is its id for erasures, if it has surrogates."""
    has_system = messages[0][0] == "system"
    return Row(
        task=TASK,
        document_ids=(key,) if key else (),
        messages=messages[1:] if has_system else messages,
        made_by=f"import:{name}",
        system_prompt=messages[0][1] if has_system else "",
        grounding=Grounding.PEOPLE,
    )


def with_file(item: DatasetImport, file: DatasetFile) -> DatasetImport:
    """The import with its file; accepted rows that the file does not have were erased."""
    erased = {RowRejection.ERASED.value: item.rows - file.rows} if file.rows < item.rows else {}
    return replace(item, file=file.ref, rows=file.rows, rejected=add_counts(item.rejected, erased))


def row_text_id(item: DatasetImport, number: int) -> str:
    """The id, for erasures, of the row with this number in the imported file."""
    return text_id("import", item.spec.name, item.request_id, number)


def content_id(row: Row) -> str:
    """Equal for rows with equal messages."""
    return replace(row, document_ids=()).row_id


def is_shared(row: Row, share_percent: int) -> bool:
    """True if the row is among those that specialists may use: a fixed hash of its content decides."""
    return int(fingerprint("import", content_id(row))[:8], 16) % 100 < share_percent


def add_counts(first: Mapping[str, int], second: Mapping[str, int]) -> dict[str, int]:
    """The sums by name."""
    return {name: first.get(name, 0) + second.get(name, 0) for name in sorted({*first, *second})}


def count_rejections(reasons: Sequence[RowRejection]) -> dict[str, int]:
    """The number of rejected rows by reason."""
    return {reason.value: reasons.count(reason) for reason in sorted(set(reasons))}
