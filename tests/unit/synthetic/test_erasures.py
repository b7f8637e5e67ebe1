"""Erased documents, and the datasets that are superseded."""

from collections.abc import Sequence
from dataclasses import replace

from services.synthetic.corpus import ALL_SEGMENTS, SEGMENT_DOCUMENTS
from services.synthetic.domain import Dataset, DocumentPage, Row
from services.synthetic.erasures import DatasetEraser
from services.synthetic.handlers import build_dataset, on_document
from services.synthetic.ports import Holdings
from tailor.events.erased import Erased, Forgotten
from tailor.words import DatasetKind, RowPolicy
from tests.unit.synthetic.fakes import SPECIALIST, FakeSynthetic, ListedRows, MemoryRepository, make_app, put_document

REPLAY = RowPolicy(replay_percent=50, replay=("chat",))


class MemoryHoldings(Holdings):
    """Holdings over a repository in memory."""

    def __init__(self, repository: MemoryRepository) -> None:
        self.repository = repository

    def segment_of(self, document_id: str) -> int | None:
        arrival = self.repository.arrivals.get(document_id)
        return None if arrival is None else arrival // SEGMENT_DOCUMENTS

    def forget_document(self, document_id: str) -> tuple[int, list[str]]:
        segment = self.segment_of(document_id)
        for known in (self.repository.sketches, self.repository.arrivals):
            known.pop(document_id, None)
        for key in [key for key in self.repository.assignments if key[1] == document_id]:
            del self.repository.assignments[key]
        dropped = [key for key in self.repository.segments if key[1] == segment]
        files = [name for key in dropped for name in self.repository.segments.pop(key).keys]
        listed = self.repository.listed_keys()
        count = int(self.repository.documents.pop(document_id, None) is not None)
        return count, [key for key in files if key not in listed]

    def forget_drafts(self, adapters: Sequence[str]) -> tuple[int, list[str]]:
        drafts = self.repository.drafts
        gone = [drafts.pop(key) for key, draft in list(drafts.items()) if draft.adapter_digest in adapters]
        shared = {draft.text for draft in drafts.values()}
        return len(gone), sorted({draft.text.key for draft in gone if draft.saved and draft.text not in shared})

    def datasets(self, specialist: str) -> list[Dataset]:
        return [dataset for (name, _), dataset in self.repository.datasets.items() if specialist == name]

    def dataset(self, specialist: str, digest: str) -> Dataset | None:
        return self.repository.datasets.get((specialist, digest))

    def source_files(self, specialist: str, segment: int | None) -> list[tuple[str, str]]:
        segments = {segment, ALL_SEGMENTS}
        return [
            (digest, stored.file.ref.key)
            for (name, digest), files in self.repository.files.items()
            for stored in files
            if name == specialist and stored.is_sources and (segment is None or stored.segment in segments)
        ]

    def unshared_files(self, digests: Sequence[str]) -> list[str]:
        files = self.repository.files
        doomed = {stored.file.ref.key for key, part in files.items() if key[1] in digests for stored in part}
        kept = {stored.file.ref.key for key, part in files.items() if key[1] not in digests for stored in part}
        stored = {s.file.ref.key for result in self.repository.segments.values() for s in result.files}
        return sorted(doomed - kept - stored)

    def specialists(self) -> list[str]:
        return sorted({name for name, _ in self.repository.datasets})

    def newest_digests(self, specialist: str) -> dict[DatasetKind, str]:
        return {k: str(b["digest"]) for (name, k), b in self.repository.builds.items() if name == specialist}

    def drop_dataset(self, dataset: Dataset) -> None:
        self.repository.datasets.pop((dataset.specialist, dataset.digest), None)
        self.repository.files.pop((dataset.specialist, dataset.digest), None)
        build = self.repository.builds[dataset.specialist, dataset.kind]
        if build["digest"] == dataset.digest:
            build |= {"digest": "", "fingerprint": ""}


def build(numbers: int = 40) -> tuple[FakeSynthetic, MemoryRepository, Dataset]:
    app = make_app()
    for number in range(numbers):
        on_document(app, put_document(app.store, number))
    dataset = build_dataset(app, SPECIALIST.name, "").dataset
    return app, app.repository, dataset


def forget(app: FakeSynthetic, repository: MemoryRepository, document_id: str) -> Forgotten:
    return DatasetEraser(app, MemoryHoldings(repository), lambda _: 0).forget(Erased(document_id, "ers_1"))


def test_supersedes_a_dataset_with_rows_of_the_document_and_deletes_its_bytes() -> None:
    app, repository, old = build()
    erased = min(app.documents(old.digest))
    forgotten = forget(app, repository, erased)
    (new,) = repository.datasets.values()
    assert new.digest != old.digest and erased not in app.documents(new.digest)
    assert repository.published == [old.digest, new.digest]
    assert forgotten.datasets == (old.digest,)
    keys = [key for bucket, key in app.store.objects if bucket == "datasets"]
    assert f"{old.digest}/manifest.json" not in keys and f"{new.digest}/manifest.json" in keys
    # The manifest, train, its quiz, held-out, two of sources, and the segment's two of 13-grams.
    assert len(keys) == 8


def test_forgetting_is_idempotent() -> None:
    app, repository, old = build()
    erased = min(app.documents(old.digest))
    forget(app, repository, erased)
    again = forget(app, repository, erased)
    assert not any(again.counts.values()) and not again.datasets
    assert len(repository.published) == 2


def test_deletes_a_dataset_even_if_too_few_rows_are_left() -> None:
    app, repository, old = build()
    first, *others = sorted(app.documents(old.digest))
    for document_id in others:
        repository.documents.pop(document_id)
    forget(app, repository, first)
    assert not repository.datasets
    assert not [key for bucket, key in app.store.objects if bucket == "datasets"]


def test_keeps_datasets_without_rows_of_the_document() -> None:
    app, repository, old = build()
    on_document(app, put_document(app.store, 99))
    forgotten = forget(app, repository, f"doc_{99:032d}")
    assert dict(forgotten.counts) == {
        "documents": 1,
        "imported_rows": 0,
        "drafts": 0,
        "datasets": 0,
        "ranked_datasets": 0,
        "objects": 0,
    }
    assert list(repository.datasets.values()) == [old]


def test_ignores_an_erased_document_that_arrives_late() -> None:
    late = put_document(make_app().store, 7)
    app = make_app(erased={late.document_id}, list_documents=lambda *_: [DocumentPage((late,))])
    on_document(app, late)
    assert app.repository.document(late.document_id) is None


def test_erasing_a_text_supersedes_the_datasets_with_its_rows_only() -> None:
    names = ("txt_1", "txt_2", "txt_3")
    rows = {name: Row("example", (name,), (("user", "Who?"), ("assistant", f"{name}."))) for name in names}
    taught = [replace(rows[name], made_by="import:chat", tokens=5) for name in ("txt_1", "txt_2")]
    extra = ListedRows(taught)
    app = make_app(extra_rows=(extra,), specialists={"reports": replace(SPECIALIST, rows=REPLAY)})
    for number in range(40):
        on_document(app, put_document(app.store, number))
    old = build_dataset(app, SPECIALIST.name, "").dataset
    assert old.documents == 40 and {"txt_1", "txt_2"} <= app.documents(old.digest)

    def forget_row(text_id: str) -> int:
        before = len(extra.listed)
        extra.listed[:] = [row for row in extra.listed if text_id not in row.document_ids]
        return before - len(extra.listed)

    eraser = DatasetEraser(app, MemoryHoldings(app.repository), forget_row)
    assert not any(eraser.forget(Erased("txt_3", "ers_1")).counts.values())
    forgotten = eraser.forget(Erased("txt_1", "ers_1"))
    (new,) = app.repository.datasets.values()
    assert forgotten.datasets == (old.digest,) and forgotten.counts["imported_rows"] == 1
    assert "txt_1" not in app.documents(new.digest) and "txt_2" in app.documents(new.digest)
