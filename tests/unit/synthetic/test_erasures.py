"""Erased documents, and the datasets that are superseded."""

import hashlib
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from services.synthetic.corpus import ALL_SEGMENTS, SEGMENT_DOCUMENTS
from services.synthetic.dataset_superseder import DatasetSuperseder
from services.synthetic.domain import Dataset, DocumentPage, KeptDraft, Row, SupersededVersion, SupersedeWaits
from services.synthetic.erasures import DatasetEraser
from services.synthetic.handlers import build_dataset, on_document, on_draft
from services.synthetic.ports import Holdings, SupersededVersions
from tailor.events.erased import Erased, Forgotten
from tailor.values import DatasetKind, RowPolicy
from tests.unit.synthetic.fakes import (
    SPECIALIST,
    FakeSynthetic,
    ListedRows,
    MemoryRepository,
    make_app,
    put_document,
    report,
)

WAITS = SupersedeWaits(quiet_seconds=4, max_seconds=60)
REPLAY = RowPolicy(replay_percent=50, replay=("chat",))


class MemoryHoldings(Holdings, SupersededVersions):
    """Holdings over a repository in memory."""

    def __init__(self, repository: MemoryRepository) -> None:
        self.repository = repository
        self.versions: dict[tuple[str, str], SupersededVersion] = {}
        # The seconds since the oldest and the newest superseded version became known.
        self.ages = (WAITS.quiet_seconds, WAITS.quiet_seconds)

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

    def held_versions(self, document_ids: Sequence[str]) -> dict[str, tuple[int, str]]:
        known = self.repository.documents
        return {key: (known[key][2].sequence, known[key][2].digest) for key in document_ids if key in known}

    def keep_superseded(self, version: SupersededVersion) -> None:
        self.versions.setdefault((version.document_id, version.erasure_id), version)

    def superseded(self, limit: int) -> list[SupersededVersion]:
        return [*self.versions.values()][:limit]

    def superseded_ages(self) -> tuple[float, float] | None:
        return self.ages if self.versions else None

    def drop_superseded(self, versions: Sequence[SupersededVersion]) -> None:
        for version in versions:
            del self.versions[version.document_id, version.erasure_id]

    def superseding(self) -> AbstractContextManager[bool]:
        return nullcontext(True)

    def forget_derived(self, document_id: str) -> list[str]:
        segment = self.segment_of(document_id)
        dropped = [key for key in self.repository.segments if key[1] == segment]
        files = [name for key in dropped for name in self.repository.segments.pop(key).keys]
        listed = self.repository.listed_keys()
        return [key for key in files if key not in listed]

    def forget_drafts(self, adapters: Sequence[str], text_id: str = "") -> tuple[int, list[str]]:
        drafts = self.repository.drafts
        gone = [
            drafts.pop(key)
            for key, draft in list(drafts.items())
            if draft.adapter_digest in adapters or (text_id and draft.text_id == text_id)
        ]
        shared = {draft.text for draft in drafts.values()}
        return len(gone), sorted({draft.text.key for draft in gone if draft.saved and draft.text not in shared})

    def forget_drawn(self, document_id: str) -> tuple[int, list[str]]:
        drafts = self.repository.drafts
        gone = [drafts.pop(key) for key, draft in list(drafts.items()) if document_id in draft.drawn_from]
        return len(gone), sorted({draft.text.sha256 for draft in gone})

    def datasets(self, specialist: str) -> list[Dataset]:
        return [dataset for (name, _), dataset in self.repository.datasets.items() if specialist == name]

    def dataset(self, specialist: str, digest: str) -> Dataset | None:
        return self.repository.datasets.get((specialist, digest))

    def source_files(self, specialist: str, segments: Collection[int] | None) -> list[tuple[str, str]]:
        return [
            (digest, stored.file.ref.key)
            for (name, digest), files in self.repository.files.items()
            for stored in files
            if name == specialist
            and stored.is_sources
            and (segments is None or stored.segment in {*segments, ALL_SEGMENTS})
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
    # The manifest, train, its closed-book set, held-out, two of sources, and the segment's 13-grams and its parts.
    assert len(keys) == 7 + sum(len(segment.parts) for segment in repository.segments.values())


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


def supersede(app: FakeSynthetic, repository: MemoryRepository, *versions: tuple[str, int]) -> dict[str, Forgotten]:
    """What is confirmed, by document."""
    confirmed: dict[str, Forgotten] = {}
    superseder = make_superseder(app, MemoryHoldings(repository), confirmed)
    for document_id, sequence in versions:
        superseder.remember(Erased(document_id, "ers_1", sequence=sequence))
    assert not confirmed and superseder.replace_if_due() and not superseder.replace_if_due()
    return confirmed


def make_superseder(app: FakeSynthetic, holdings: MemoryHoldings, confirmed: dict[str, Forgotten]) -> DatasetSuperseder:
    def confirm(erased: Erased, forgotten: Forgotten) -> None:
        confirmed[erased.document_id] = forgotten

    return DatasetSuperseder(DatasetEraser(app, holdings, lambda _: 0), holdings, confirm, WAITS)


def mask(app: FakeSynthetic, document_id: str, sequence: int = 2, digest: str = "replayed") -> None:
    number = int(document_id.removeprefix("doc_"))
    masked = put_document(app.store, number, text=report(f"masked{number}"))
    on_document(app, replace(masked, sequence=sequence, digest=digest))


def test_a_superseded_version_leaves_its_datasets_and_the_new_one_enters_them() -> None:
    app, repository, old = build()
    document_id = min(app.documents(old.digest))
    mask(app, document_id)
    assert supersede(app, repository, (document_id, 2))[document_id].datasets == (old.digest,)
    assert (SPECIALIST.name, old.digest) not in repository.datasets
    (new,) = {digest for name, digest in repository.datasets if name == SPECIALIST.name}
    assert document_id in app.documents(new) and new != old.digest
    assert supersede(app, repository, (document_id, 2))[document_id].datasets == ()
    assert (SPECIALIST.name, new) in repository.datasets
    # A version with the same text changes no row, so nothing is lost.
    mask(app, document_id, 3, "again")
    supersede(app, repository, (document_id, 2))
    assert {digest for name, digest in repository.datasets if name == SPECIALIST.name} != set()


def test_a_superseded_version_takes_the_drafts_with_it_whose_prompts_were_drawn_from_it() -> None:
    app, repository, _ = build()
    document_id, other = sorted(repository.documents)[:2]
    for key, origin in (("drf_1", document_id), ("drf_2", other)):
        text = app.store.put("drafts", f"drawn/{hashlib.sha256(key.encode()).hexdigest()}.json", key.encode())
        on_draft(app, KeptDraft(key, "reports", "p", "a", text, drawn_from=(origin,)))
    make_superseder(app, MemoryHoldings(repository), {}).remember(Erased(document_id, "ers_1", sequence=2))
    assert [*repository.drafts] == ["drf_2"]
    assert [app.store.get(draft.text) for draft in repository.drafts.values()] == [b"drf_2"]
    assert len(app.store.list_keys("drafts", "drawn/")) == 1


def test_a_superseded_version_is_dropped_if_the_new_one_has_not_arrived() -> None:
    app, repository, old = build()
    document_id = min(app.documents(old.digest))
    assert supersede(app, repository, (document_id, 2))[document_id].datasets == (old.digest,)
    (new,) = {digest for name, digest in repository.datasets if name == SPECIALIST.name}
    assert document_id not in app.documents(new) and document_id not in repository.documents


def test_many_superseded_versions_give_one_new_dataset() -> None:
    app, repository, old = build()
    replayed = sorted(app.documents(old.digest))[:5]
    for document_id in replayed[:4]:
        mask(app, document_id)
    untouched = f"doc_{77:032d}"
    confirmed = supersede(app, repository, *((document_id, 2) for document_id in (*replayed, untouched)))
    assert {key: forgotten.datasets for key, forgotten in confirmed.items()} == {
        **dict.fromkeys(replayed, (old.digest,)),
        untouched: (),
    }
    (new,) = {digest for name, digest in repository.datasets if name == SPECIALIST.name}
    assert repository.published == [old.digest, new]
    assert {*replayed[:4]} <= app.documents(new) and replayed[4] not in app.documents(new)


def test_superseded_versions_wait_until_no_more_arrive_but_not_for_ever() -> None:
    app, repository, old = build()
    document_id, holdings = min(app.documents(old.digest)), MemoryHoldings(repository)
    confirmed: dict[str, Forgotten] = {}
    superseder = make_superseder(app, holdings, confirmed)
    assert not superseder.replace_if_due()
    superseder.remember(Erased(document_id, "ers_1", sequence=2))
    holdings.ages = (WAITS.max_seconds - 1, WAITS.quiet_seconds - 1)
    assert not superseder.replace_if_due() and old.digest in {digest for _, digest in repository.datasets}
    holdings.ages = (WAITS.max_seconds, 0.0)
    assert superseder.replace_if_due() and document_id in confirmed
