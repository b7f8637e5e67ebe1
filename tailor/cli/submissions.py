"""The files to publish, with their ids and labels. All are checked before any is sent."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path

from tailor.errors import InvalidArgument, Reason

SLUG = re.compile(r"^[a-z0-9-]{1,64}$")
DRAFT_ID = re.compile(r"^drf_[0-9a-f]{32}$")
ADDRESS = re.compile(r"^(s3|https)://[^/]+/")
INDEX_NAME = "documents.json"
MAX_ID_LENGTH = 512


class DocumentKind(Enum):
    """The kind of a document."""

    DOCUMENT = "document"
    DELIVERABLE = "deliverable"
    EXAMPLE = "example"
    TEST = "test"


@dataclass(frozen=True)
class Description:
    """The publisher's description of a document; absent fields are None."""

    kind: str | None = None
    source: str | None = None
    department: str | None = None
    confidentiality: str | None = None
    document_id: str | None = None
    draft_id: str | None = None

    def over(self, other: "Description") -> "Description":
        """This description, with its absent fields taken from `other`."""
        return Description(**{name: value or getattr(other, name) for name, value in vars(self).items()})

    @property
    def labels(self) -> dict[str, str]:
        """The labels that are present."""
        labels = {"source": self.source, "department": self.department, "confidentiality": self.confidentiality}
        return {name: value for name, value in labels.items() if value}


@dataclass(frozen=True)
class FileSubmission:
    """One file to publish under the publisher's own id."""

    path: Path
    document_id: str
    description: Description


@dataclass(frozen=True)
class FileReference:
    """One file to publish by its address: `s3://BUCKET/KEY` or `https://HOST/...`."""

    uri: str
    document_id: str
    description: Description


def refer(uris: Sequence[str], description: Description) -> list[FileReference]:
    """Make a reference for each address. Raises InvalidArgument if any is invalid.

    By default, the id is the address without its query, because the query may contain a signature.
    """
    if description.document_id and len(uris) != 1:
        raise InvalidArgument(Reason.DUPLICATE_DOCUMENT_ID, "--document-id needs exactly one --uri.")
    references = [FileReference(uri, description.document_id or uri.partition("?")[0], description) for uri in uris]
    problems = {item.uri: text for item in references for text in _mistakes(item.document_id, description)}
    problems |= {uri: "must be s3://BUCKET/KEY or https://HOST/..." for uri in uris if not ADDRESS.match(uri)}
    if problems:
        raise InvalidArgument(
            Reason.CANNOT_PUBLISH, "Nothing was sent, because some files are invalid.", field_violations=problems
        )
    return list({reference.document_id: reference for reference in references}.values())


def collect(paths: Sequence[Path], description: Description) -> list[FileSubmission]:
    """Make a submission for each file. Raises InvalidArgument if any is invalid.

    The description applies to all files and takes precedence over an index. A directory stands for all files below it except hidden
    ones. Its index is `documents.json` in it, or a JSON file of the same name next to it: an object that maps each file's path, relative
    to the directory, to `kind`, `source`, `department`, `confidentiality`, `document_id` and `draft_id`. By default, a file's id is the
    name of its directory and its path in it, so that publishing it again creates a new version.
    """
    submissions = [submission for path in paths for submission in _submissions_below(path, description)]
    if description.document_id and len(submissions) != 1:
        raise InvalidArgument(Reason.DUPLICATE_DOCUMENT_ID, "--document-id needs exactly one file.")
    problems = {str(submission.path): text for submission in submissions for text in _problems(submission)}
    seen: dict[str, Path] = {}
    for submission in submissions:
        other = seen.setdefault(submission.document_id, submission.path)
        if other != submission.path:
            problems[str(submission.path)] = f"has the same id as {other}"
    if problems:
        raise InvalidArgument(
            Reason.CANNOT_PUBLISH, "Nothing was sent, because some files are invalid.", field_violations=problems
        )
    if not submissions:
        raise InvalidArgument(Reason.NOTHING_TO_PUBLISH, "These paths contain no files.")
    return list({submission.document_id: submission for submission in submissions}.values())


def _submissions_below(path: Path, description: Description) -> Iterator[FileSubmission]:
    path = path.absolute()
    folder = path if path.is_dir() else path.parent
    index_path, index = _index(folder)
    files = _files(folder) if path.is_dir() else [path]
    for file in files:
        if file == index_path:
            continue
        relative = file.relative_to(folder).as_posix()
        merged = description.over(index.get(relative, Description()))
        yield FileSubmission(file, merged.document_id or f"{folder.resolve().name}/{relative}", merged)


def _files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _index(folder: Path) -> tuple[Path | None, dict[str, Description]]:
    resolved = folder.resolve()
    sibling = resolved.parent / f"{resolved.name}.json"
    path = next((path for path in (folder / INDEX_NAME, sibling) if path.is_file()), None)
    if path is None:
        return None, {}
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidArgument(Reason.INVALID_INDEX, f"{path} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise InvalidArgument(Reason.INVALID_INDEX, f"{path} is not JSON: {error}.") from None
    if not isinstance(entries, dict):
        raise InvalidArgument(Reason.INVALID_INDEX, f"{path} must be a JSON object that maps each file to an object.")
    for name, entry in entries.items():
        if not isinstance(entry, dict):
            raise InvalidArgument(Reason.INVALID_INDEX, f"{path}: the entry of {name!r} must be an object.")
    return path, {name: _description(entry) for name, entry in entries.items()}


def _description(entry: Mapping[str, object]) -> Description:
    known = {field.name for field in fields(Description)}
    return Description(**{name: str(value) for name, value in entry.items() if name in known and value})


def _problems(submission: FileSubmission) -> Iterator[str]:
    try:
        with submission.path.open("rb"):
            pass
    except OSError as error:
        yield f"cannot be read ({error.strerror})"
    yield from _mistakes(submission.document_id, submission.description)


def _mistakes(document_id: str, description: Description) -> Iterator[str]:
    if len(document_id) > MAX_ID_LENGTH:
        yield f"has an id of more than {MAX_ID_LENGTH} characters"
    if description.kind and description.kind not in {kind.value for kind in DocumentKind}:
        yield f"has an unknown kind {description.kind!r}"
    if description.draft_id and not DRAFT_ID.match(description.draft_id):
        yield "has an invalid draft id: it must be drf_ and 32 hexadecimal digits"
    elif description.draft_id and description.kind != "deliverable":
        yield "has a draft id, which only a deliverable may have"
    for name, value in description.labels.items():
        if not SLUG.match(value):
            yield f"has an invalid {name}: a label is at most 64 characters of a-z, 0-9 and '-'"
