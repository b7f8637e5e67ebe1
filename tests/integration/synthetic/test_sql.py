"""Synthetic over PostgreSQL, Parquet and MinHash."""

import io
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from pyarrow import parquet
from sqlalchemy import Engine, text

from services.synthetic import handlers
from services.synthetic.adapters import tables
from services.synthetic.adapters.erasures import SqlHoldings
from services.synthetic.bootstrap import make_build_jobs
from services.synthetic.consumers import Consumers
from services.synthetic.corpus import NearDuplicateCount
from services.synthetic.domain import BuildPolicy, Judgement, KeptDraft, Kind, Row, SyncCursor
from services.synthetic.edited_rows import EditedRows
from services.synthetic.parquet import join_tables, make_table, read_table
from services.synthetic.rpc import SyntheticServicer
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import documents_pb2, drafts_pb2, models_pb2
from tailor.api.synthetic.v1 import synthetic_pb2
from tailor.errors import InvalidArgument, NotFound, PermissionDenied
from tailor.events.envelope import Event
from tailor.events.erased import Erased
from tailor.jobs import Jobs
from tailor.rounds import is_held_out
from tailor.rpc.auth import Caller, set_caller
from tailor.storage.ref import Ref
from tailor.values import DatasetKind, Filters, Labels, Selection, Span, SpanKind
from tests.jobs import run_due
from tests.synthetic import (
    CONTEXT,
    SPECIALIST,
    UNUSED,
    WordTokenizers,
    World,
    distinct,
    key_of,
    put_document,
    read_splits,
    tick,
)

pytestmark = pytest.mark.integration

LADDERS = distinct(7)
RANKED: dict[str, Any] = {
    "keep_drafts": True,
    "stages": ("sft", "dpo"),
    "policy": replace(SPECIALIST.policy, min_ranked_prompts=8),
}


def test_builds_once_and_reports_when_nothing_is_new(world: World) -> None:
    world.fill()
    first = handlers.build_dataset(world.app, "reports", "one")
    assert first.created and first.dataset.documents == 40 and first.dataset.intake_seconds > 0
    assert handlers.build_dataset(world.app, "reports", "two").created is False
    assert handlers.build_dataset(world.app, "reports", "one") == handlers.build_dataset(world.app, "reports", "one")
    assert tick(world.app) == []
    (message,) = world.published()
    assert message.digest == message.manifest.sha256 == first.dataset.digest
    assert (message.base, message.pipeline[0].recipe, message.kind) == (
        "smollm2-135m-instruct",
        "lora",
        models_pb2.DATASET_KIND_SFT,
    )
    manifest = world.manifest(message.digest)
    assert message.documents == manifest.sources.count == len(world.documents(message.digest)) == 40
    assert message.figures.coverage == manifest.figures.coverage > 0.9 and message.figures.overlap == 0
    assert (message.train_rows, message.held_out_rows) == tuple(manifest.split(n).rows for n in ("train", "held_out"))


def test_the_same_corpus_in_another_place_gives_the_same_bytes(world: World) -> None:
    world.fill()
    digest = world.build().digest
    before = dict(world.store.objects)
    world.forget_builds()
    assert world.build().digest == digest
    assert world.store.objects == before


def test_documents_keep_their_side_and_near_duplicates_change_nothing(world: World) -> None:
    world.fill()
    first = world.build_result()
    ids = sorted(world.documents(first.dataset.digest))
    before = world.repository.sides("reports", ids)
    world.put(900, text=distinct(3) + " Revised.")
    assert world.build_result().created is False
    world.fill(first=40, count=20)
    second = world.build_result()
    assert second.created and second.dataset.near_duplicates == 1
    assert world.repository.sides("reports", ids) == before
    copy, original = (key_of(number) for number in (900, 3))
    sides = world.repository.sides("reports", [copy, original])
    assert sides[copy] == sides[original]
    assert len(world.published()) == 2


def test_replicas_never_build_twice(engine: Engine) -> None:
    world = World(engine, sleep=time.sleep)
    world.fill()
    twin = World(engine, world.store, sleep=time.sleep)
    replicas = [Jobs(engine, tables.jobs, make_build_jobs(it.app)) for it in (world, twin)]
    for jobs in replicas:
        jobs.arm()
    with ThreadPoolExecutor(2) as pool:
        # The first round looks for what is due.
        for _ in range(2):
            list(pool.map(run_due, replicas))
    assert len(world.published()) == 1
    with ThreadPoolExecutor(2) as pool:
        again = list(pool.map(lambda w: handlers.build_dataset(w.app, "reports", ""), [world, twin]))
    assert [result.created for result in again] == [False, False]
    assert len(world.published()) == 1


def test_keeps_the_newest_of_versions_that_arrive_concurrently(world: World) -> None:
    versions = [replace(put_document(world.store, 1), sequence=number, digest=f"d{number}") for number in range(1, 13)]
    start = threading.Barrier(4)

    def keep(part: int) -> None:
        start.wait()
        for version in versions[part::4]:
            world.repository.keep_document(version)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(keep, range(4)))
    newest = world.repository.documents.find(document_id=versions[0].document_id)
    assert newest == versions[-1]
    assert world.repository.keep_document(versions[3]) is False


def test_progress_counts_selected_new_items_only_and_no_more_than_it_needs(world: World) -> None:
    risk = replace(SPECIALIST, policy=BuildPolicy(10), selection=Selection(departments=("risk",)))
    assert world.repository.progress(risk, DatasetKind.SFT).seconds_since_new is None
    world.fill(count=3)
    world.repository.keep_document(put_document(world.store, 50, labels=Labels("wiki", "people", "internal")))
    assert world.repository.keep_judgement(Judgement("jdg_1", "reports", ("drf_1",), {"style": 4}, "Good."))
    assert not world.repository.keep_judgement(Judgement("jdg_1", "reports", ("drf_1",), {"style": 4}, "Good."))
    progress = world.repository.progress(risk, DatasetKind.SFT)
    assert (progress.new_items, progress.seconds_since_build) == (3, None)
    assert world.repository.progress(replace(risk, policy=BuildPolicy(2)), DatasetKind.SFT).new_items == 2
    assert world.repository.progress(risk, DatasetKind.PREFERENCE).new_items == 0
    world.repository.keep_judgement(Judgement("jdg_2", "reports", ("drf_1", "drf_2"), {}, ""))
    finished = replace(put_document(world.store, 51), kind=Kind.DELIVERABLE, draft_id="drf_1")
    world.repository.keep_document(finished)
    assert world.repository.progress(risk, DatasetKind.PREFERENCE).new_items == 2
    drawn = {d.document_id for d in world.repository.draw_documents(risk, 9)}
    assert drawn > {key_of(n) for n in (51, 2)} and len(world.repository.draw_documents(risk, 2)) == 2
    world.repository.mark_tried("reports", DatasetKind.SFT, 5)
    world.repository.set_sync_cursor("reports", SyncCursor(7, 12))
    assert world.repository.progress(risk, DatasetKind.PREFERENCE).tried_position == 0
    assert world.repository.progress(risk, DatasetKind.SFT).tried_position == 5 and world.repository.sync_cursor(
        "reports"
    ) == SyncCursor(7, 12)


def test_events_and_calls_reach_the_database(world: World) -> None:
    ref = put_document(world.store, 1, text=LADDERS).text
    message = documents_pb2.DocumentAnonymized(
        document_id="doc_9",
        version=common_pb2.Version(sequence=1, digest="d"),
        kind=common_pb2.KIND_DOCUMENT,
        labels=common_pb2.Labels(source="wiki"),
        text=common_pb2.ObjectRef(uri=ref.uri, sha256=ref.sha256, size_bytes=ref.size_bytes),
        spans=[common_pb2.Span(kind=common_pb2.SPAN_KIND_PAGE, number=4, start=0, end=len(LADDERS))],
    )
    consumers = Consumers(world.app)
    event = Event("document.anonymized.v1", "doc_9", message.SerializeToString())
    for _ in range(2):
        consumers.topics()[event.topic](event)
    with pytest.raises(InvalidArgument, match="INCOMPLETE_EVENT"):
        consumers.document(replace(event, value=b""))
    servicer = SyntheticServicer(world.app, world.browser(), UNUSED)
    set_caller(Caller("key", "an engineer", "ROLE_ENGINEER", frozenset({"reports"})))
    rows = servicer.PreviewRows(synthetic_pb2.PreviewRowsRequest(specialist="reports"), CONTEXT).rows
    assert rows and all(
        list(row.document_ids) == ["doc_9"] and [message.role for message in row.messages][-2:] == ["user", "assistant"]
        for row in rows
    )
    assert all([span.number for span in row.spans] == [4] for row in rows)
    world.fill()
    built = servicer.BuildDataset(synthetic_pb2.BuildDatasetRequest(specialist="reports", request_id="x"), CONTEXT)
    assert built.created and built.dataset.digest and built.intake_seconds > 0
    counted = servicer.CountNearDuplicates(synthetic_pb2.CountNearDuplicatesRequest(specialist="reports"), CONTEXT)
    assert counted.compared == counted.documents == 41 and counted.threshold == 0.8
    with pytest.raises(PermissionDenied):
        servicer.CountNearDuplicates(synthetic_pb2.CountNearDuplicatesRequest(), CONTEXT)
    set_caller(Caller("key", "another", "ROLE_ENGINEER", frozenset({"others"})))
    with pytest.raises(NotFound):
        servicer.BuildDataset(synthetic_pb2.BuildDatasetRequest(specialist="reports"), CONTEXT)


def test_equal_rows_give_equal_parquet() -> None:
    page = Span(SpanKind.PAGE, 2, 5, 9)
    rows = [
        Row(
            "section", ("doc_1",), (("user", "Ask."), ("assistant", "Say.")), spans=(page,), places=((5, 9),), tokens=7
        ),
        Row("example", ("doc_2",), (("user", "A"), ("assistant", "B")), lineage=(("seeds", "x"),)),
    ]
    data = make_table(rows).encode()
    assert data == make_table(list(rows)).encode() != make_table(rows[:1]).encode()
    assert join_tables([read_table(data).select([True, False]), make_table(rows[1:])]).encode() == data
    table = parquet.read_table(io.BytesIO(data))
    assert table.column("spans").to_pylist() == [[{"kind": "page", "number": 2, "level": 0, "start": 5, "end": 9}], []]
    assert table.column("places").to_pylist() == [[{"start": 5, "end": 9}], []]
    assert table.column("lineage").to_pylist() == [[], [("seeds", "x")]]
    assert list(read_table(data).answers()) == [(("doc_1",), "Say."), (("doc_2",), "B")]


def test_counts_near_duplicates_before_any_dataset_is_built(world: World) -> None:
    world.fill(count=20)
    copy = distinct(3)
    for number in (100, 101):
        world.put(number, text=f"{copy} Once more, number {number}.")
    counted = world.preparer.count(Selection())
    assert counted == NearDuplicateCount(documents=22, compared=22, near_duplicates=2, groups=1)
    assert world.preparer.count(Selection(sources=("share",))).documents == 0
    assert world.repository.sides("reports", [key_of(100)]) == {}


def test_sketches_a_changed_text_again_and_keeps_nothing_of_an_erased_document(world: World) -> None:
    for number in (1, 2):
        world.put(number, text=f"{distinct(1)} Number {number}.")
    assert world.preparer.count(Selection()).near_duplicates == 1
    world.put(2, sequence=2)
    assert world.preparer.count(Selection(), seconds=0.0) == NearDuplicateCount(2, 1, 0, 0)
    assert world.preparer.count(Selection()) == NearDuplicateCount(2, 2, 0, 0)
    for number in (1, 2):
        SqlHoldings(world.engine).forget_document(key_of(number))
    with world.engine.begin() as connection:
        for name in ("sketches", "text_clusters", "text_bands", "cluster_documents", "pending"):
            assert connection.execute(text(f"SELECT FROM {name}")).all() == []


def test_looks_for_a_missing_text_once(world: World) -> None:
    document = put_document(world.store, 1)
    handlers.on_document(world.app, document)
    world.store.delete("corpus", document.text.key)
    assert world.preparer.count(Selection()) == NearDuplicateCount(1, 1, 0, 0)
    assert world.preparer.sketches.missing(Selection(), 10) == []


def test_stores_languages_and_counts_of_what_filters_removed(world: World) -> None:
    world.define(filters=Filters(languages=("en",)))
    world.put(0, language="de")
    world.put(*range(1, 40), language="en")
    built = handlers.build_dataset(world.app, "reports", "first")
    assert built.dataset.skipped["language"].documents == 1 and built.dataset.skipped["language"].characters > 100
    assert handlers.build_dataset(world.app, "reports", "first").dataset.skipped == built.dataset.skipped
    world.put(99, language="fr")
    again = handlers.build_dataset(world.app, "reports", "second")
    assert (again.created, again.dataset.skipped["language"].documents) == (False, 2)
    assert handlers.build_dataset(world.app, "reports", "third").dataset.skipped == again.dataset.skipped
    assert len(world.published()) == 1


def created(number: int, side: str, *, answer: str = "", world: World) -> Event:
    """A draft with a stored text, as inference publishes it."""
    messages = [{"role": "user", "content": f"Write about {number}."}]
    data = json.dumps({"messages": messages, "answer": answer or f"{side} answer {number}"}).encode()
    kept = world.store.put("drafts", f"texts/{hash(data)}.json", data)
    message = drafts_pb2.DraftCreated(draft_id=f"drf_{number}_{side}", specialist="reports", prompt_digest=f"p{number}")
    message.adapter_digest = f"adapter{number}"
    message.text.CopyFrom(common_pb2.ObjectRef(uri=kept.uri, sha256=kept.sha256, size_bytes=kept.size_bytes))
    return Event("draft.created.v1", message.draft_id, message.SerializeToString())


def judged(number: int, *ranking: str) -> Event:
    message = drafts_pb2.JudgementRecorded(judgement_id=f"jdg_{number}", specialist="reports", ranking=ranking)
    return Event("judgement.recorded.v1", "reports", message.SerializeToString())


def test_rankings_become_a_preference_dataset_next_to_that_of_documents(world: World) -> None:
    world.define(**RANKED)
    consumers = Consumers(world.app)
    for number in range(40):
        # In both orders, and twice.
        consumers.draft(created(number, "good", world=world))
        consumers.judgement(judged(number, f"drf_{number}_good", f"drf_{number}_bad"))
        consumers.draft(created(number, "bad", world=world))
        consumers.draft(created(number, "bad", world=world))
    consumers.draft(Event("draft.created.v1", "drf_x", drafts_pb2.DraftCreated(draft_id="drf_x").SerializeToString()))
    consumers.draft(created(99, "unjudged", world=world))
    for bucket, key in list(world.store.objects):
        if bucket == "drafts":
            world.store.delete(bucket, key)
    (built,) = tick(world.app)
    assert tick(world.app) == []
    world.fill()
    world.build_result()
    by_kind = {event.kind: event for event in world.published()}
    assert set(by_kind) == {models_pb2.DATASET_KIND_SFT, models_pb2.DATASET_KIND_PREFERENCE}
    published = by_kind[models_pb2.DATASET_KIND_PREFERENCE]
    assert [stage.recipe for stage in published.pipeline] == ["lora", "dpo"]
    assert (published.judgements, published.documents) == (40, 0)
    assert published.draft_adapter_digests == sorted(f"adapter{number}" for number in range(40))
    assert world.repository.answer("none") is None and built.dataset.digest == published.digest
    rows = read_splits(world.store, published.digest)
    assert len(rows["train"]) + len(rows["held_out"]) == 40 and rows["held_out"]
    row = rows["train"][0]
    number = row["judgement_ids"][0].removeprefix("jdg_")
    assert row == {
        "row_id": row["row_id"],
        "task": "ranking",
        "messages": [
            {"role": "system", "content": SPECIALIST.system_prompt},
            {"role": "user", "content": f"Write about {number}."},
        ],
        "chosen": f"good answer {number}",
        "rejected": f"bad answer {number}",
        "document_ids": [],
        "judgement_ids": [f"jdg_{number}"],
        "made_by": "human",
        "tokens": row["tokens"],
    }
    call = SyntheticServicer(world.app, world.browser(), UNUSED).BuildDataset
    set_caller(Caller("key", "engineer", "ROLE_ENGINEER"))
    request = synthetic_pb2.BuildDatasetRequest(specialist="reports", kind=models_pb2.DATASET_KIND_PREFERENCE)
    answer = call(request, CONTEXT)
    assert (answer.created, answer.pairs.pairs, answer.pairs.judgements) == (False, 40, 40)


def edited(number: int, draft_id: str, answer: str, world: World) -> Event:
    """A draft as an expert edited it, as inference publishes it."""
    event = created(number, "edited", answer=answer, world=world)
    message = drafts_pb2.DraftCreated.FromString(event.value or b"")
    message.draft_id, message.edit_of = draft_id, f"drf_{number}_good"
    return Event("draft.created.v1", draft_id, message.SerializeToString())


def edit_id(number: int, prefix: str = "drf_") -> str:
    return f"{prefix}{number:032x}"


EDITS = 40


def edited_world(world: World) -> Consumers:
    """Documents, and 40 prompts of which an expert edited the better draft."""
    world.define(**RANKED)
    world.app = replace(world.app, extra_rows=(EditedRows(world.repository, world.store, WordTokenizers()),))
    world.fill()
    consumers = Consumers(world.app)
    for number in range(EDITS):
        for side in ("good", "bad"):
            consumers.draft(created(number, side, world=world))
        consumers.draft(edited(number, edit_id(number), f"edited answer {number}", world))
        consumers.judgement(judged(number, edit_id(number), f"drf_{number}_good", f"drf_{number}_bad"))
    return consumers


def list_taught(world: World) -> set[int]:
    """The numbers of the edits whose prompts are not held out."""
    percent = world.app.specialists["reports"].rows.held_out_percent
    return {number for number in range(EDITS) if not is_held_out(f"p{number}", percent)}


def build_both(world: World) -> tuple[dict[str, list[dict[str, Any]]], dict[str, list[dict[str, Any]]]]:
    """The rows of edits in a new dataset of documents, and all rows in one of rankings, by split."""
    documents = world.build()
    rankings = handlers.build_dataset(world.app, "reports", "", DatasetKind.PREFERENCE).dataset
    rows = read_splits(world.store, documents.digest)
    edits = {split: [row for row in rows[split] if row["task"] == "deliverable"] for split in rows}
    return edits, read_splits(world.store, rankings.digest)


def test_an_edit_that_was_only_rated_or_compared_with_another_draft_teaches_no_row(world: World) -> None:
    consumers = edited_world(world)
    for number, others in ((EDITS, ()), (EDITS + 1, (f"drf_{EDITS + 1}_bad",))):
        for side in ("good", "bad"):
            consumers.draft(created(number, side, world=world))
        consumers.draft(edited(number, edit_id(number), f"edited answer {number}", world))
        consumers.judgement(judged(number, edit_id(number), *others))
    rows, _ = build_both(world)
    assert len(rows["train"]) == len(list_taught(world)) and not rows["held_out"]


def test_an_edited_draft_is_a_pair_and_a_row_to_train_on_unless_the_pair_is_held_out(world: World) -> None:
    edited_world(world)
    rows, pairs = build_both(world)
    taught = set()
    for row in rows["train"]:
        (text_id,) = row["document_ids"]
        number = int(text_id.removeprefix("txt_"), 16)
        taught.add(number)
        assert [part["content"] for part in row["messages"][-2:]] == [
            f"Write about {number}.",
            f"edited answer {number}",
        ]
        assert dict(row["lineage"]) == {
            "judgement": f"jdg_{number}",
            "draft": f"drf_{number}_good",
            "seeds": f"p{number}",
        }
    held_out = set(range(EDITS)) - taught
    assert taught == list_taught(world) and len(rows["train"]) == len(taught) and held_out and not rows["held_out"]
    for split, numbers in (("train", taught), ("held_out", held_out)):
        made = sorted((pair["chosen"], pair["rejected"], pair["document_ids"]) for pair in pairs[split])
        assert made == sorted(
            pair
            for number in numbers
            for pair in (
                (f"edited answer {number}", f"good answer {number}", [edit_id(number, "txt_")]),
                (f"good answer {number}", f"bad answer {number}", []),
            )
        )


def test_an_edit_that_was_taken_back_or_became_a_deliverable_makes_no_row(world: World) -> None:
    consumers = edited_world(world)
    retracted = drafts_pb2.JudgementRecorded(judgement_id="jdg_7", specialist="reports", retracted=True)
    consumers.judgement(Event("judgement.recorded.v1", "reports", retracted.SerializeToString()))
    # As after a replay.
    consumers.judgement(judged(7, edit_id(7), "drf_7_good", "drf_7_bad"))
    world.put(200, kind=Kind.DELIVERABLE, draft_id="drf_8_good")
    rows, pairs = build_both(world)
    taught = {key for split in rows.values() for row in split for key in row["document_ids"]}
    assert {7, 8} & list_taught(world)
    assert taught == {key_of(200)} | {edit_id(number, "txt_") for number in list_taught(world) - {7, 8}}
    assert not [pair for split in pairs.values() for pair in split if "jdg_7" in pair["judgement_ids"]]


def test_an_erased_edit_leaves_both_datasets_and_does_not_come_back(world: World) -> None:
    edited_world(world)
    old_rows, old_pairs = build_both(world)
    (text_id,) = old_rows["train"][0]["document_ids"]
    number = int(text_id.removeprefix("txt_"), 16)
    world.app = replace(world.app, erased={text_id})
    eraser = world.eraser()
    forgotten = eraser.forget(Erased(text_id, "ers_1"))
    assert (forgotten.counts["drafts"], len(forgotten.datasets)) == (1, 2)
    assert not eraser.forget(Erased(text_id, "ers_1")).counts["drafts"]
    Consumers(world.app).draft(edited(number, edit_id(number), f"edited answer {number}", world))
    rows, pairs = build_both(world)
    assert sum(map(len, rows.values())) == len(list_taught(world)) - 1
    assert text_id not in str(rows) and text_id not in str(pairs) and f"edited answer {number}'" not in str(pairs)
    judged_again = [pair for split in pairs.values() for pair in split if pair["judgement_ids"] == [f"jdg_{number}"]]
    assert [(pair["chosen"], pair["rejected"]) for pair in judged_again] == [
        (f"good answer {number}", f"bad answer {number}")
    ]
    assert sum(map(len, old_pairs.values())) == 2 * EDITS


def test_the_edits_of_a_retired_adapters_drafts_leave_both_datasets(world: World) -> None:
    edited_world(world)
    rows, _ = build_both(world)
    built = world.published()
    everybody = sorted(f"adapter{number}" for number in range(EDITS))
    assert [list(dataset.draft_adapter_digests) for dataset in built] == [everybody] * 2
    eraser = world.eraser()
    forgotten = eraser.forget(Erased("doc_0", "ers_1", retired=("adapter3",)))
    assert (forgotten.counts["drafts"], forgotten.counts["ranked_datasets"]) == (3, 2)
    assert not any(world.store.exists("datasets", f"{dataset.digest}/manifest.json") for dataset in built)
    rows, pairs = build_both(world)
    assert sum(map(len, rows.values())) == len(list_taught(world) - {3}) and "answer 3'" not in str(rows) + str(pairs)


def test_keeps_saved_drafts_and_forgets_others_in_time(world: World) -> None:
    repository = world.repository
    kept = KeptDraft("drf_1", "reports", "p", "a", Ref("s3://drafts/texts/x.json", "x", 1))
    saved = replace(kept, draft_id="drf_2", saved=True)
    for draft in (kept, saved):
        repository.keep_draft(draft)
    repository.keep_draft(replace(saved, saved=False, text=Ref("s3://drafts/texts/y.json", "y", 1)))
    repository.forget_drafts(30)
    assert repository.drafts.all(draft_id=["drf_1", "drf_2", "drf_3"]) == [kept, saved]
    world.run_sql("UPDATE drafts SET kept_at = kept_at - interval '31 days'")
    repository.forget_drafts(30)
    assert repository.drafts.all(draft_id=["drf_1", "drf_2"]) == [saved]


def test_a_draft_is_wanted_when_it_is_judged_or_finished(world: World) -> None:
    world.repository.keep_judgement(Judgement("jdg_1", "reports", ("drf_1", "drf_2"), {}, ""))
    world.put(1, kind=Kind.DELIVERABLE, draft_id="drf_3")
    assert [world.repository.is_wanted(f"drf_{n}") for n in (1, 2, 3, 4)] == [True, True, True, False]
