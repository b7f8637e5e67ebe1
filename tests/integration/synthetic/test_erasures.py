"""Erased documents and superseded versions, and the datasets with them."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import pytest
from sqlalchemy import Engine

from services.synthetic import handlers
from services.synthetic.adapters import tables
from services.synthetic.adapters.erasures import SUPERSEDING
from services.synthetic.domain import DocumentPage, KeptDraft, Row, SupersedeWaits
from services.synthetic.erasures import DatasetSuperseder
from tailor.events.erased import Erased, Forgotten
from tailor.jobs import JobKind, Jobs
from tailor.values import RowPolicy
from tests.jobs import make_due, run_due
from tests.synthetic import SPECIALIST, ListedRows, World, distinct, key_of, put_document

pytestmark = pytest.mark.integration


def digests(world: World) -> list[str]:
    return [dataset.digest for dataset in world.datasets.all(specialist="reports")]


def test_a_document_without_rows_in_it_leaves_a_dataset_and_one_that_is_too_small_afterwards_goes(world: World) -> None:
    world.fill()
    old = world.build().digest
    world.fill(99, 1)
    world.preparer.prepare(SPECIALIST.selection)
    forgotten = world.eraser().forget(Erased(key_of(99), "ers_1"))
    nothing = dict.fromkeys(("imported_rows", "drafts", "datasets", "ranked_datasets"), 0)
    assert {**forgotten.counts, "objects": 0} == {"documents": 1, "objects": 0, **nothing} and digests(world) == [old]
    first, *others = sorted(world.documents(old))
    world.run_sql(f"DELETE FROM documents WHERE document_id <> '{first}'")
    assert world.eraser().forget(Erased(first, "ers_2")).datasets == (old,)
    assert others and digests(world) == []
    assert not [key for bucket, key in world.store.objects if bucket == "datasets"]


def test_ignores_an_erased_document_that_arrives_late(engine: Engine) -> None:
    world = World(engine, erased={key_of(7)})
    late = put_document(world.store, 7)
    world.app = replace(world.app, list_documents=lambda *_: [DocumentPage((late,))])
    handlers.on_document(world.app, late)
    handlers.catch_up(world.app, SPECIALIST)
    assert world.repository.documents.find(document_id=late.document_id) is None


def test_erasing_a_text_supersedes_the_datasets_with_its_rows_only(engine: Engine) -> None:
    taught = [
        Row("example", (name,), (("user", "Who?"), ("assistant", f"{name}.")), made_by="import:chat", tokens=5)
        for name in ("txt_1", "txt_2")
    ]
    extra = ListedRows(taught)
    policy = RowPolicy(replay_percent=50, replay=("chat",))
    world = World(engine, extra_rows=(extra,), specialists={"reports": replace(SPECIALIST, rows=policy)})
    world.fill()
    old = world.build()
    assert old.documents == 40 and {"txt_1", "txt_2"} <= world.documents(old.digest)

    def forget_row(text_id: str) -> int:
        before = len(extra.listed)
        extra.listed[:] = [row for row in extra.listed if text_id not in row.document_ids]
        return before - len(extra.listed)

    eraser = world.eraser(forget_row)
    assert not any(eraser.forget(Erased("txt_3", "ers_1")).counts.values())
    forgotten = eraser.forget(Erased("txt_1", "ers_1"))
    (new,) = digests(world)
    assert forgotten.datasets == (old.digest,) and forgotten.counts["imported_rows"] == 1
    assert "txt_1" not in world.documents(new) and "txt_2" in world.documents(new)


def make_superseder(world: World, confirmed: dict[str, Forgotten], quiet: float = 0.0) -> DatasetSuperseder:
    def confirm(erased: Erased, forgotten: Forgotten) -> None:
        confirmed[erased.document_id] = forgotten

    return DatasetSuperseder(world.eraser(), confirm, SupersedeWaits(quiet, 60.0))


def run(world: World, superseder: DatasetSuperseder) -> None:
    """Run the superseder's job at once, and again as long as it is due."""
    make_due(world.engine, tables.jobs)
    jobs = Jobs(world.engine, tables.jobs, [JobKind(SUPERSEDING, superseder.run)])
    while run_due(jobs):
        pass


def supersede(world: World, document_ids: Sequence[str]) -> dict[str, Forgotten]:
    """What is confirmed, by document."""
    confirmed: dict[str, Forgotten] = {}
    superseder = make_superseder(world, confirmed)
    for document_id in document_ids:
        superseder.remember(Erased(document_id, "ers_1", sequence=2))
    assert not confirmed
    run(world, superseder)
    return confirmed


def test_superseded_versions_leave_their_datasets_together_and_new_ones_enter_them(world: World) -> None:
    world.fill()
    old = world.build().digest
    replayed = sorted(world.documents(old))[:5]
    for number in map(int, (key.removeprefix("doc_") for key in replayed[:4])):
        world.put(number, text=distinct(number + 500), sequence=2, digest="replayed")
    untouched = key_of(77)
    confirmed = supersede(world, [*replayed, untouched])
    expected = {**dict.fromkeys(replayed, (old,)), untouched: ()}
    assert {key: forgotten.datasets for key, forgotten in confirmed.items()} == expected
    (new,) = digests(world)
    assert [it.digest for it in world.published()] == [old, new]
    # Of the last one, the new version has not arrived.
    assert {*replayed[:4]} <= world.documents(new) and replayed[4] not in world.documents(new)
    assert world.repository.documents.find(document_id=replayed[4]) is None
    assert not world.store.exists("datasets", f"{old}/manifest.json")
    assert supersede(world, replayed[:1])[replayed[0]].datasets == () and digests(world) == [new]
    # A version with the same text changes no row, so nothing is lost.
    number = int(replayed[0].removeprefix("doc_"))
    world.put(number, text=distinct(number + 500), sequence=3, digest="again")
    supersede(world, replayed[:1])
    assert digests(world)


def test_superseded_versions_wait_until_no_more_arrive_but_not_for_ever(world: World) -> None:
    world.fill()
    world.build()
    confirmed: dict[str, Forgotten] = {}
    superseder = make_superseder(world, confirmed, quiet=30.0)
    for number in (1, 2):
        superseder.remember(Erased(key_of(number), "ers_1", sequence=2))
    world.run_sql(f"UPDATE superseded SET kept_at = kept_at - interval '55 seconds' WHERE document_id = '{key_of(1)}'")
    run(world, superseder)
    assert not confirmed
    world.run_sql(f"UPDATE superseded SET kept_at = kept_at - interval '9 seconds' WHERE document_id = '{key_of(1)}'")
    run(world, superseder)
    assert set(confirmed) == {key_of(1), key_of(2)}


def test_a_superseded_version_takes_the_drafts_with_it_whose_prompts_were_drawn_from_it(world: World) -> None:
    world.fill(count=2)
    for key, origin in (("drf_1", key_of(0)), ("drf_2", key_of(1))):
        text = world.store.put("drafts", f"drawn/{hashlib.sha256(key.encode()).hexdigest()}.json", key.encode())
        handlers.on_draft(world.app, KeptDraft(key, "reports", "p", "a", text, drawn_from=(origin,)))
    make_superseder(world, {}).remember(Erased(key_of(0), "ers_1", sequence=2))
    (left,) = world.repository.drafts.all(draft_id=["drf_1", "drf_2"])
    assert world.store.get(left.text) == b"drf_2" and len(world.store.list_keys("drafts", "drawn/")) == 1
