"""A dataset's `manifest.json`: the files of its splits, its sources and judgements, its figures, and what it leaves out.

Standard library only, for the service that writes datasets and for those that read them.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tailor.errors import FailedPrecondition, InvalidArgument, Reason
from tailor.storage.buckets import DATASETS
from tailor.storage.ref import Ref
from tailor.values import DatasetKind

TRAIN, HELD_OUT = "train", "held_out"


@dataclass(frozen=True)
class DatasetFile:
    """A Parquet file in the datasets bucket, and the number of its rows."""

    ref: Ref
    rows: int

    def as_json(self) -> dict[str, object]:
        """The file as an entry of a manifest."""
        ref = self.ref
        return {"key": ref.key, "sha256": ref.sha256, "size_bytes": ref.size_bytes, "rows": self.rows}


@dataclass(frozen=True)
class SplitFiles:
    """A split: its rows, their tokens by the base's tokenizer, and its files in the order of the rows."""

    rows: int = 0
    tokens: int = 0
    files: tuple[DatasetFile, ...] = ()

    def as_json(self) -> dict[str, object]:
        """The split as an entry of a manifest."""
        return {"rows": self.rows, "tokens": self.tokens, "files": [file.as_json() for file in self.files]}


@dataclass(frozen=True)
class IdFiles:
    """Ids that occur in Parquet files, sorted: `document_id` and `digest` of sources, `judgement_id` of judgements."""

    count: int = 0
    files: tuple[DatasetFile, ...] = ()

    def as_json(self, unit: str) -> dict[str, object]:
        """The ids as an entry of a manifest; the unit is `documents` or `judgements`."""
        return {unit: self.count, "files": [file.as_json() for file in self.files]}


@dataclass(frozen=True)
class Figures:
    """Measures of a dataset of documents.

    Shares from 0 to 1: `coverage` of the characters of admitted documents that rows teach, `grounded` of the answers to which it applies
    whose figures and names the prompt supports, `overlap` of held-out answers that also occur in train. `characters` are those of the
    admitted documents. `over_redaction` is the number of replacements of strings that are hardly personal, per 1,000 words of the documents
    that rows come from; `max_over_redaction` is the limit above which the installation warned, 0 if it was not measured.
    """

    coverage: float = 0.0
    grounded: float = 0.0
    overlap: float = 0.0
    characters: int = 0
    over_redaction: float = 0.0
    max_over_redaction: float = 0.0


@dataclass(frozen=True)
class SkippedCount:
    """What one reason left out: documents as a whole, rows, and characters of text."""

    documents: int = 0
    rows: int = 0
    characters: int = 0

    def __add__(self, other: "SkippedCount") -> "SkippedCount":
        return SkippedCount(
            self.documents + other.documents, self.rows + other.rows, self.characters + other.characters
        )


@dataclass(frozen=True)
class ImportCount:
    """The rows of an import in a dataset: its SPDX licence, the percentage of its rows that specialists may use, and its source."""

    name: str
    licence: str
    share_percent: int
    source: str = ""
    rows: int = 0


@dataclass(frozen=True)
class LanguageCount:
    """The documents of a language that give rows, and their rows. Without templates, prompts use the documents' own headings."""

    rows: int = 0
    documents: int = 0
    has_templates: bool = True


@dataclass(frozen=True)
class DatasetManifest:
    """The parts of a manifest that readers use; a writer may add others. `skipped` is by reason, `languages` by tag.

    `planted_secrets` is a file of JSON lines (`tailor/planted_secrets.py`): the secrets that somebody planted in rows to measure a model.
    `teacher_tokens` are those that the syntheses spent whose accepted rows the dataset has.
    """

    kind: DatasetKind
    specialist: str
    splits: Mapping[str, SplitFiles]
    sources: IdFiles = IdFiles()
    judgements: IdFiles = IdFiles()
    figures: Figures = Figures()
    skipped: Mapping[str, SkippedCount] = field(default_factory=dict)
    teacher_tokens: int = 0
    planted_secrets: DatasetFile | None = None
    imports: tuple[ImportCount, ...] = ()
    languages: Mapping[str, LanguageCount] = field(default_factory=dict)

    @classmethod
    def parse(cls, data: bytes) -> "DatasetManifest":
        """Parse a manifest. Raises FailedPrecondition (INVALID_MANIFEST) if a field is missing or has the wrong type."""
        try:
            return _parse(json.loads(data))
        except (AttributeError, KeyError, TypeError, ValueError, InvalidArgument):
            raise FailedPrecondition(
                Reason.INVALID_MANIFEST, "The manifest does not describe a dataset. Build the dataset again."
            ) from None

    def split(self, name: str) -> SplitFiles:
        """The split of that name; without rows if the dataset does not have it."""
        return self.splits.get(name, SplitFiles())

    @property
    def files(self) -> tuple[DatasetFile, ...]:
        """All files of the dataset. The same file can be part of several datasets."""
        splits = (file for split in self.splits.values() for file in split.files)
        planted = () if self.planted_secrets is None else (self.planted_secrets,)
        return (*splits, *self.sources.files, *self.judgements.files, *planted)

    def as_json(self) -> dict[str, object]:
        """The manifest for `json.dumps`. Preference datasets have `judgements`, datasets of documents `imports` and `languages`."""
        value: dict[str, object] = {
            "kind": self.kind.value,
            "specialist": self.specialist,
            "splits": {name: split.as_json() for name, split in self.splits.items()},
            "sources": self.sources.as_json("documents"),
            "figures": asdict(self.figures),
            "skipped": {reason: asdict(count) for reason, count in self.skipped.items()},
        }
        if self.kind is DatasetKind.PREFERENCE:
            value["judgements"] = self.judgements.as_json("judgements")
        else:
            value["imports"] = [asdict(entry) for entry in self.imports]
            value["languages"] = {tag: asdict(count) for tag, count in self.languages.items()}
        if self.planted_secrets is not None:
            value["planted_secrets"] = self.planted_secrets.as_json()
        return value | ({"teacher": {"tokens": self.teacher_tokens}} if self.teacher_tokens else {})


def _parse(value: Mapping[str, Any]) -> DatasetManifest:
    return DatasetManifest(
        kind=DatasetKind(value["kind"]),
        specialist=str(value["specialist"]),
        splits={str(name): _parse_split(split) for name, split in value["splits"].items()},
        sources=_parse_ids(value["sources"], "documents"),
        judgements=_parse_ids(value.get("judgements", {"judgements": 0, "files": []}), "judgements"),
        figures=_parse_figures(value.get("figures", {})),
        skipped={str(reason): _parse_count(count) for reason, count in value.get("skipped", {}).items()},
        teacher_tokens=int(value.get("teacher", {}).get("tokens", 0)),
        planted_secrets=_parse_file(value["planted_secrets"]) if "planted_secrets" in value else None,
        imports=tuple(_parse_import(entry) for entry in value.get("imports", ())),
        languages={str(tag): _parse_language(count) for tag, count in value.get("languages", {}).items()},
    )


def _parse_split(value: Mapping[str, Any]) -> SplitFiles:
    return SplitFiles(int(value["rows"]), int(value["tokens"]), _parse_files(value["files"], int(value["rows"])))


def _parse_ids(value: Mapping[str, Any], unit: str) -> IdFiles:
    return IdFiles(int(value[unit]), _parse_files(value["files"], int(value[unit])))


def _parse_files(values: Iterable[Mapping[str, Any]], rows: int) -> tuple[DatasetFile, ...]:
    """The files. Raises ValueError if their rows do not add up, and InvalidArgument if a key leads out of the bucket."""
    files = tuple(_parse_file(value) for value in values)
    if sum(file.rows for file in files) != rows:
        raise ValueError("the files' rows do not add up")
    return files


def _parse_file(value: Mapping[str, Any]) -> DatasetFile:
    ref = Ref(f"s3://{DATASETS}/{value['key']}", str(value["sha256"]), int(value["size_bytes"]))
    return DatasetFile(Ref(f"s3://{DATASETS}/{ref.key}", ref.sha256, ref.size_bytes), int(value["rows"]))


def _parse_figures(value: Mapping[str, Any]) -> Figures:
    names = ("coverage", "grounded", "overlap", "over_redaction", "max_over_redaction")
    shares = {name: float(value.get(name, 0.0)) for name in names}
    return Figures(**shares, characters=int(value.get("characters", 0)))


def _parse_count(value: Mapping[str, Any]) -> SkippedCount:
    return SkippedCount(*(int(value.get(name, 0)) for name in ("documents", "rows", "characters")))


def _parse_import(value: Mapping[str, Any]) -> ImportCount:
    return ImportCount(
        name=str(value["name"]),
        licence=str(value["licence"]),
        share_percent=int(value["share_percent"]),
        source=str(value["source"]),
        rows=int(value["rows"]),
    )


def _parse_language(value: Mapping[str, Any]) -> LanguageCount:
    return LanguageCount(int(value["rows"]), int(value["documents"]), bool(value["has_templates"]))
