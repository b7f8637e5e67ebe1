"""The manifest of a dataset: what the writer stores is what readers get, and anything else is refused."""

import json
from typing import Any

import pytest

from tailor.datasets import (
    HELD_OUT,
    TRAIN,
    DatasetFile,
    DatasetManifest,
    Figures,
    IdFiles,
    ImportCount,
    LanguageCount,
    SkippedCount,
    SplitFiles,
)
from tailor.errors import FailedPrecondition, Reason
from tailor.storage.ref import Ref
from tailor.values import DatasetKind


def file(name: str, rows: int) -> DatasetFile:
    return DatasetFile(Ref(f"s3://datasets/files/{name}.parquet", name * 2, 100), rows)


MANIFEST = DatasetManifest(
    kind=DatasetKind.PREFERENCE,
    specialist="reports",
    splits={
        TRAIN: SplitFiles(5, 700, (file("a", 3), file("b", 2))),
        HELD_OUT: SplitFiles(1, 90, (file("c", 1),)),
    },
    sources=IdFiles(4, (file("d", 4),)),
    judgements=IdFiles(2, (file("e", 2),)),
    figures=Figures(coverage=0.93, grounded=0.99, overlap=0.0, characters=424_912),
    skipped={"no_words": SkippedCount(documents=2, characters=1400), "overlap": SkippedCount(rows=3)},
    teacher_tokens=40,
)


def stored(**changes: Any) -> bytes:
    return json.dumps({**MANIFEST.as_json(), **changes}).encode()


def test_a_stored_manifest_reads_as_written_and_a_writer_may_add_fields() -> None:
    assert DatasetManifest.parse(stored(builder={"version": 3})) == MANIFEST


def test_files_lie_in_the_datasets_bucket() -> None:
    first = DatasetManifest.parse(stored()).split(TRAIN).files[0]
    assert (first.ref.uri, first.ref.sha256, first.ref.size_bytes) == ("s3://datasets/files/a.parquet", "aa", 100)


def test_a_dataset_of_documents_names_its_imports_and_languages_and_no_judgements() -> None:
    manifest = DatasetManifest(
        DatasetKind.SFT,
        "reports",
        splits={},
        imports=(ImportCount("chat", "CC-BY-4.0", 20, "chat.jsonl", 7),),
        languages={"is": LanguageCount(rows=3, documents=1, has_templates=False)},
    )
    value = manifest.as_json()
    assert "judgements" not in value and "teacher" not in value
    assert DatasetManifest.parse(json.dumps(value).encode()) == manifest


def test_a_split_that_does_not_exist_has_no_rows() -> None:
    assert DatasetManifest.parse(stored(splits={})).split(HELD_OUT) == SplitFiles()


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "reward"},
        {"splits": None},
        {"splits": {"train": {"rows": 1, "files": []}}},
        {"splits": {"train": {"rows": 2, "tokens": 0, "files": []}}},
        {"sources": {"documents": 1, "files": [{"key": "../models/x", "sha256": "a", "size_bytes": 1, "rows": 1}]}},
        {"sources": [{"document_id": "doc_1", "digest": "a"}]},
        {"skipped": {"overlap": 3}},
        {"imports": [{"name": "chat", "rows": 3}]},
        {"languages": {"is": 3}},
        {"figures": {"coverage": "most"}},
    ],
    ids=lambda changes: json.dumps(changes)[:40],
)
def test_refuses_a_manifest_that_does_not_describe_a_dataset(changes: dict[str, Any]) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        DatasetManifest.parse(stored(**changes))
    assert refused.value.reason == Reason.INVALID_MANIFEST


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'"text"', b"\xff"])
def test_refuses_bytes_that_are_not_a_manifest(data: bytes) -> None:
    with pytest.raises(FailedPrecondition, match="INVALID_MANIFEST"):
        DatasetManifest.parse(data)
