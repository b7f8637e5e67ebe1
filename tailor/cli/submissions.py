"""What is to be published: files, their ids and their labels, checked as a whole before anything is sent."""

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


class Kind(Enum):
    """What a document is."""

    DOCUMENT = "document"
    DELIVERABLE = "deliverable"
    EXAMPLE = "example"


@dataclass(frozen=True)
class Description:
    """What is said of a document; None where nothing is."""

    kind: str | None = None
    source: str | None = None
    department: str | None = None
    confidentiality: str | None = None
    document_id: str | None = None
    draft_id: str | None = None

    def over(self, other: "Description") -> "Description":
        """This description, filled in by another where it says nothing."""
        return Description(**{name: value or getattr(other, name) for name, value in vars(self).items()})

    @property
    def labels(self) -> dict[str, str]:
        """The labels that are given."""
        given = {"source": self.source, "department": self.department, "confidentiality": self.confidentiality}
        return {name: value for name, value in given.items() if value}


@dataclass(frozen=True)
class Submission:
    """One file to publish under the publisher's own id."""

    path: Path
    document_id: str
    description: Description


@dataclass(frozen=True)
class Reference:
    """One file to publish by where it lies: `s3://BUCKET/KEY` or `https://HOST/...`."""

    uri: str
    document_id: str
    description: Description


def refer(uris: Sequence[str], said: Description) -> list[Reference]:
    """A reference for each address; InvalidArgument where anything is wrong. Its id is the address without its query, which may hold a
    signature."""
    if said.document_id and len(uris) != 1:
        raise InvalidArgument(Reason.DUPLICATE_DOCUMENT_ID, "A document id can be given for one file only.")
    found = [Reference(uri, said.document_id or uri.partition("?")[0], said) for uri in uris]
    problems = {each.uri: text for each in found for text in _wrong(each.document_id, said)}
    problems |= {uri: "is neither s3://BUCKET/KEY nor https://HOST/..." for uri in uris if not ADDRESS.match(uri)}
    if problems:
        raise InvalidArgument(Reason.CANNOT_PUBLISH, "Nothing was sent.", field_violations=problems)
    return list({each.document_id: each for each in found}.values())


def collect(paths: Sequence[Path], said: Description) -> list[Submission]:
    """A submission for each file. What was said holds for all of them, and goes before an index; InvalidArgument where anything is wrong.

    A directory gives all files below it, but hidden ones. Its index is `documents.json` inside it, or a JSON file of its own name
    beside it: an object that maps each file's path, relative to the directory, to `kind`, `source`, `department`,
    `confidentiality`, `document_id`, `draft_id`. A file's id is its directory's name and its path in it, so that publishing it
    again is a new version.
    """
    found = [submission for path in paths for submission in _below(path, said)]
    if said.document_id and len(found) != 1:
        raise InvalidArgument(Reason.DUPLICATE_DOCUMENT_ID, "A document id can be given for one file only.")
    problems = {str(submission.path): text for submission in found for text in _problems(submission)}
    seen: dict[str, Path] = {}
    for submission in found:
        other = seen.setdefault(submission.document_id, submission.path)
        if other != submission.path:
            problems[str(submission.path)] = f"has the same id as {other}"
    if problems:
        raise InvalidArgument(Reason.CANNOT_PUBLISH, "Nothing was sent.", field_violations=problems)
    if not found:
        raise InvalidArgument(Reason.NOTHING_TO_PUBLISH, "There is no file in these paths.")
    return list({submission.document_id: submission for submission in found}.values())


def _below(path: Path, said: Description) -> Iterator[Submission]:
    path = path.absolute()
    folder = path if path.is_dir() else path.parent
    index_path, index = _index(folder)
    files = _files(folder) if path.is_dir() else [path]
    for file in files:
        if file == index_path:
            continue
        relative = file.relative_to(folder).as_posix()
        description = said.over(index.get(relative, Description()))
        yield Submission(file, description.document_id or f"{folder.resolve().name}/{relative}", description)


def _files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _index(folder: Path) -> tuple[Path | None, dict[str, Description]]:
    named = folder.resolve()
    beside = named.parent / f"{named.name}.json"
    path = next((path for path in (folder / INDEX_NAME, beside) if path.is_file()), None)
    if path is None:
        return None, {}
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return path, {name: _description(entry) for name, entry in entries.items()}
    except (OSError, ValueError, AttributeError):
        raise InvalidArgument(Reason.INVALID_INDEX, f"{path} must be a JSON object of objects, by file.") from None


def _description(entry: Mapping[str, object]) -> Description:
    known = {field.name for field in fields(Description)}
    return Description(**{name: str(value) for name, value in entry.items() if name in known and value})


def _problems(submission: Submission) -> Iterator[str]:
    try:
        with submission.path.open("rb"):
            pass
    except OSError as error:
        yield f"cannot be read ({error.strerror})"
    yield from _wrong(submission.document_id, submission.description)


def _wrong(document_id: str, description: Description) -> Iterator[str]:
    if len(document_id) > MAX_ID_LENGTH:
        yield f"has an id over {MAX_ID_LENGTH} characters"
    if description.kind and description.kind not in {kind.value for kind in Kind}:
        yield f"has an unknown kind {description.kind!r}"
    if description.draft_id and (description.kind != "deliverable" or not DRAFT_ID.match(description.draft_id)):
        yield "has a draft id that is not drf_ and 32 hexadecimal digits, or is no deliverable"
    for name, value in description.labels.items():
        if not SLUG.match(value):
            yield f"has a bad {name}: labels are at most 64 of a-z, 0-9 and '-'"
