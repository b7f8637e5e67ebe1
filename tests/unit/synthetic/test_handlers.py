"""Builds, previews and the scheduler's tick."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from services.synthetic import handlers
from services.synthetic.consumers import Consumers
from services.synthetic.corpus import SEGMENT_DOCUMENTS
from services.synthetic.domain import BuildPolicy, BuildProgress, DocumentPage, Judgement, OverRedaction, Specialist
from services.synthetic.wire import from_dataset, to_dataset
from tailor.api.events.v1 import drafts_pb2
from tailor.datasets import DatasetManifest
from tailor.errors import Aborted, FailedPrecondition, InvalidArgument, NotFound, Reason, Unavailable
from tailor.events.envelope import Event
from tailor.storage.memory import MemoryStore
from tailor.storage.ref import Ref
from tailor.values import DatasetKind, Labels, Selection
from tests.unit.synthetic.fakes import SPECIALIST, FakeSynthetic, MemoryRepository, make_app, put_document


def filled(count: int = 60, **changes: Any) -> FakeSynthetic:
    app = make_app(**changes)
    for number in range(count):
        handlers.on_document(app, put_document(app.store, number))
    return app


def test_builds_a_dataset_whose_manifest_names_rows_and_sources() -> None:
    app = filled()
    result = handlers.build_dataset(app, "reports", "r1")
    content = app.manifest(result.dataset.digest)
    assert result.created and content["kind"] == "sft" and content["specialist"] == "reports"
    assert content["splits"]["train"]["rows"] == result.dataset.train_rows > 80
    assert content["splits"]["held_out"]["rows"] == result.dataset.held_out_rows > 0
    assert (
        content["sources"]["documents"] == result.dataset.documents == len(app.documents(result.dataset.digest)) == 60
    )
    assert content["figures"]["coverage"] == 1.0 and content["figures"]["overlap"] == 0.0
    assert [len(app.keys(result.dataset.digest, split)) for split in ("train", "held_out")] == [1, 1]
    assert content["splits"]["train"]["tokens"] == sum(
        row["tokens"] for row in app.rows(result.dataset.digest, "train")
    )


def documents_of(app: FakeSynthetic, digest: str, split: str) -> set[str]:
    return {row["document_ids"][0] for row in app.rows(digest, split)}


def test_an_unchanged_corpus_publishes_nothing_again() -> None:
    app = filled()
    first = handlers.build_dataset(app, "reports", "r1")
    second = handlers.build_dataset(app, "reports", "r2")
    assert (second.created, second.dataset.digest) == (False, first.dataset.digest)
    assert app.repository.published == [first.dataset.digest]
    assert handlers.build_dataset(app, "reports", "r1").created
    with pytest.raises(InvalidArgument):
        app.specialists["other"] = replace(SPECIALIST, name="other")
        handlers.build_dataset(app, "other", "r1")


class CountingStore(MemoryStore):
    """Remembers the keys of what was read."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: list[str] = []

    def read(self, bucket: str, key: str) -> bytes:
        self.keys.append(key)
        return super().read(bucket, key)


def test_new_held_out_rows_are_compared_with_unchanged_segments_without_reading_their_rows() -> None:
    store = CountingStore()
    app = filled(store=store, repository=(repository := MemoryRepository()))
    app.preparer.prepare(Selection())
    for key in repository.arrivals:
        repository.arrivals[key] *= SEGMENT_DOCUMENTS
    first = handlers.build_dataset(app, "reports", "").dataset
    for number in range(60, 90):
        handlers.on_document(app, put_document(store, number))
    store.keys.clear()
    second = handlers.build_dataset(app, "reports", "").dataset
    assert second.held_out_rows > first.held_out_rows
    kept = set(app.keys(first.digest, "train")) & set(app.keys(second.digest, "train"))
    assert len(kept) > 30 and not kept.intersection(store.keys)
    counts = {number: result.shares for (_, number), result in repository.segments.items()}
    assert any(counts.values())
    repository.segments.clear()
    repository.builds.clear()
    assert handlers.build_dataset(app, "reports", "").dataset.digest == second.digest
    again = {number: result.shares for (_, number), result in repository.segments.items()}
    assert again == counts


def test_a_near_duplicate_changes_no_dataset() -> None:
    app = filled()
    first = handlers.build_dataset(app, "reports", "")
    copy = json.loads(app.store.get(app.repository.documents[f"doc_{3:032d}"][2].text))["text"] + " Revised."
    handlers.on_document(app, put_document(app.store, 900, text=copy))
    second = handlers.build_dataset(app, "reports", "")
    assert (second.created, second.dataset.digest) == (False, first.dataset.digest)
    assert second.dataset.near_duplicates == 1


def test_held_out_rows_stay_held_out_when_documents_arrive() -> None:
    app = filled()
    before = documents_of(app, handlers.build_dataset(app, "reports", "").dataset.digest, "held_out")
    for number in range(100, 140):
        handlers.on_document(app, put_document(app.store, number))
    result = handlers.build_dataset(app, "reports", "")
    train, held_out = (documents_of(app, result.dataset.digest, split) for split in ("train", "held_out"))
    assert result.created and before <= held_out and not held_out & train


def test_an_older_version_is_ignored() -> None:
    app = make_app()
    new, old = replace(put_document(app.store, 1), sequence=5), put_document(app.store, 1, text="Old.")
    handlers.on_document(app, new)
    handlers.on_document(app, old)
    assert app.repository.document(new.document_id) == new


def test_refuses_too_few_rows_and_does_not_retry_every_second() -> None:
    app = filled(2, specialists={"reports": replace(SPECIALIST, policy=BuildPolicy(1))})
    with pytest.raises(FailedPrecondition, match="TOO_FEW_ROWS"):
        handlers.build_dataset(app, "reports", "")
    assert handlers.tick(app) == []
    assert app.repository.builds["reports", DatasetKind.SFT]["tried_position"] == 2
    assert app.repository.published == []


def test_builds_nothing_from_documents_in_which_too_much_may_be_left() -> None:
    asked = []

    def refuse(selection: Selection) -> None:
        asked.append(selection)
        raise FailedPrecondition(Reason.RESIDUAL_TOO_HIGH, "5.0 % [3.1, 7.6] of the passages; improve the policy.")

    specialist = replace(SPECIALIST, policy=BuildPolicy(1), selection=Selection(("wiki",)))
    app = filled(specialists={"reports": specialist}, check_residual=refuse)
    with pytest.raises(FailedPrecondition, match="RESIDUAL_TOO_HIGH"):
        handlers.build_dataset(app, "reports", "")
    assert asked == [Selection(("wiki",))]
    # Not retried every second, but by the next document or `tailor build`.
    assert handlers.tick(app) == [] and len(asked) == 1 and app.repository.published == []


def test_over_redaction_is_measured_in_the_documents_that_rows_come_from() -> None:
    measured: list[list[str]] = []

    def measure(batches: Iterable[Sequence[str]]) -> OverRedaction:
        measured.append(sorted(key for batch in batches for key in batch))
        return OverRedaction(1.84, 1.0)

    app = filled(measure_over_redaction=measure)
    dataset = handlers.build_dataset(app, "reports", "").dataset
    assert measured == [sorted(app.documents(dataset.digest))] and len(measured[0]) == 60
    assert (dataset.figures.over_redaction, dataset.figures.max_over_redaction) == (1.84, 1.0)
    assert DatasetManifest.parse(json.dumps(app.manifest(dataset.digest)).encode()).figures == dataset.figures
    event = from_dataset(dataset)
    assert event.figures.over_redaction == 1.84
    assert to_dataset(event, 0, {}, dataset.pairs, 0).figures == dataset.figures


def test_the_tick_builds_a_due_dataset_once() -> None:
    app = filled(specialists={"reports": replace(SPECIALIST, policy=BuildPolicy(50, quiet_seconds=5))})
    assert handlers.tick(app) == []
    app.repository.seconds = 5
    assert [result.created for result in handlers.tick(app)] == [True]
    assert handlers.tick(app) == []


class LostStore(MemoryStore):
    """Has objects, but does not answer reads."""

    def __init__(self, objects: dict[tuple[str, str], bytes]) -> None:
        super().__init__()
        self.objects = objects

    def get(self, ref: Ref) -> bytes:
        raise Unavailable(Reason("DOWN"), "Down.")


def test_a_lost_store_only_delays_the_build() -> None:
    app = filled(specialists={"reports": replace(SPECIALIST, policy=BuildPolicy(1))})
    store = LostStore(app.store.objects)
    assert handlers.tick(replace(app, store=store)) == []
    assert len(handlers.tick(app)) == 1


def test_waits_for_another_replicas_build_then_aborts() -> None:
    app = filled()
    app.repository.locked.add("reports")
    with pytest.raises(Aborted, match="BUILD_RUNNING"):
        handlers.build_dataset(app, "reports", "")


def test_reads_documents_before_a_specialist_once_per_revision() -> None:
    asked: list[tuple[str, int]] = []
    store = MemoryStore()

    def list_documents(name: str, changed_since: int) -> list[DocumentPage]:
        asked.append((name, changed_since))
        return [DocumentPage(tuple(put_document(store, number) for number in range(60)), 9)]

    app = make_app(store=store, list_documents=list_documents)
    app.specialists["reports"] = replace(SPECIALIST, policy=BuildPolicy(1))
    assert handlers.tick(app)[0].dataset.train_rows > 0
    handlers.tick(app)
    assert asked == [("reports", 0)]
    handlers.on_specialist(app, replace(SPECIALIST, revision=2))
    handlers.tick(app)
    assert asked == [("reports", 0), ("reports", 0)]
    handlers.build_dataset(app, "reports", "")
    assert asked[2:] == [("reports", 9)]


class Gone(Exception):
    """The process ends here."""


def test_a_build_reads_only_what_changed_and_again_what_a_killed_process_did_not_finish() -> None:
    asked: list[int] = []
    store, is_killed = MemoryStore(), True

    def list_documents(name: str, changed_since: int) -> Iterator[DocumentPage]:
        asked.append(changed_since)
        cursor = 10 * len(asked)
        yield DocumentPage(tuple(put_document(store, number) for number in range(changed_since, 40)), cursor)
        if is_killed:
            raise Gone
        yield DocumentPage(tuple(put_document(store, number) for number in range(40, 60)), cursor)

    app = make_app(store=store, list_documents=list_documents)
    with pytest.raises(Gone):
        handlers.build_dataset(app, "reports", "")
    is_killed = False
    assert handlers.build_dataset(app, "reports", "").dataset.documents == 60
    handlers.build_dataset(app, "reports", "")
    handlers.build_dataset(app, "reports", "")
    assert asked == [0, 0, 20, 30]


def test_a_build_on_command_includes_documents_whose_events_have_not_arrived() -> None:
    shown, store = 20, MemoryStore()

    def list_documents(name: str, changed_since: int) -> list[DocumentPage]:
        return [DocumentPage(tuple(put_document(store, number) for number in range(shown)))]

    app = make_app(store=store, list_documents=list_documents)
    before = handlers.build_dataset(app, "reports", "").dataset
    shown = 60
    after = handlers.build_dataset(app, "reports", "")
    assert after.created
    assert (before.documents, after.dataset.documents) == (20, 60)


def test_only_selected_documents_are_used() -> None:
    app = filled(specialists={"reports": replace(SPECIALIST, selection=Selection(departments=("risk",)))})
    other = put_document(app.store, 500, labels=Labels("wiki", "people", "internal"))
    handlers.on_document(app, other)
    assert other.document_id not in app.documents(handlers.build_dataset(app, "reports", "").dataset.digest)
    with pytest.raises(NotFound):
        handlers.preview_rows(app, "reports", other.document_id, 20)


def test_a_judgement_does_not_make_a_dataset_of_documents_due() -> None:
    app = filled(specialists={"reports": replace(SPECIALIST, policy=BuildPolicy(1))})
    handlers.tick(app)
    handlers.on_judgement(app, Judgement("jdg_1", "reports", ("drf_1", "drf_2"), {"style": 5}, ""))
    assert "jdg_1" in app.repository.judgements and handlers.tick(app) == []


def test_a_judgement_that_was_taken_back_stays_without_a_ranking_also_if_it_arrives_again() -> None:
    app = filled()
    consumers = Consumers(app)
    recorded = drafts_pb2.JudgementRecorded(judgement_id="jdg_1", specialist="reports", ranking=["drf_1", "drf_2"])
    retracted = drafts_pb2.JudgementRecorded(judgement_id="jdg_1", specialist="reports", retracted=True)
    for message in (recorded, retracted, recorded, retracted):
        consumers.judgement(Event("judgement.recorded.v1", "reports", message.SerializeToString(), {}))
    ((_, _, judgement),) = app.repository.judgements.values()
    assert judgement.ranking == ()
    with pytest.raises(InvalidArgument):
        nameless = drafts_pb2.JudgementRecorded(retracted=True)
        consumers.judgement(Event("judgement.recorded.v1", "reports", nameless.SerializeToString(), {}))


def test_a_tie_makes_no_rows_and_is_ignored() -> None:
    app = filled()
    consumers = Consumers(app)
    tie: dict[str, Any] = {
        "specialist": "reports",
        "equal_drafts": ["drf_1", "drf_2"],
        "outcome": drafts_pb2.JUDGEMENT_OUTCOME_TIE,
    }
    for number, drafts in enumerate((tie, {"specialist": "reports", "ranking": ["drf_1", "drf_2"]})):
        message = drafts_pb2.JudgementRecorded(judgement_id=f"jdg_{number}", **drafts)
        consumers.judgement(Event("judgement.recorded.v1", "reports", message.SerializeToString(), {}))
    assert set(app.repository.judgements) == {"jdg_1"}
    with pytest.raises(InvalidArgument):
        consumers.judgement(Event("judgement.recorded.v1", "reports", b"", {}))


def test_a_preview_is_drawn_from_all_documents_one_row_each_before_a_second_one() -> None:
    app = filled(30)
    drawn = handlers.preview_rows(app, "reports", "", 20)
    assert len({row.document_ids for row, _ in drawn}) == 20
    assert drawn == handlers.preview_rows(app, "reports", "", 20)
    assert len({row.document_ids for row, _ in handlers.preview_rows(app, "reports", "", 60)}) == 30


def test_previews_store_nothing() -> None:
    app = filled(3)
    assert len(handlers.preview_rows(app, "reports", "", 4)) == 4
    assert {row.document_ids for row, _ in handlers.preview_rows(app, "reports", f"doc_{1:032d}", 20)} == {
        (f"doc_{1:032d}",)
    }
    assert app.repository.assignments == {} and app.repository.published == []
    with pytest.raises(NotFound, match="UNKNOWN_SPECIALIST"):
        handlers.preview_rows(app, "nobody", "", 4)


class CountingRepository(MemoryRepository):
    """Counts how often it is asked for the progress of a specialist."""

    def progress(self, specialist: Specialist, kind: DatasetKind) -> BuildProgress:
        self.progress_calls += 1
        return super().progress(specialist, kind)


def test_the_tick_asks_nothing_until_something_new_arrives() -> None:
    app = filled(repository=CountingRepository(), specialists={"reports": replace(SPECIALIST, policy=BuildPolicy(100))})
    for _ in range(5):
        handlers.tick(app)
    assert app.repository.progress_calls == 1
    handlers.on_document(app, put_document(app.store, 200))
    handlers.tick(app)
    assert app.repository.progress_calls == 2
    app.specialists["reports"] = replace(SPECIALIST, revision=2, policy=BuildPolicy(61))
    assert len(handlers.tick(app)) == 1


def test_equal_corpora_give_equal_bytes() -> None:
    first, second = filled(), filled()
    digests = {handlers.build_dataset(app, "reports", "").dataset.digest for app in (first, second)}
    assert len(digests) == 1 and first.store.objects == second.store.objects


def test_nothing_is_built_for_a_deleted_specialist_and_older_revisions_do_not_return() -> None:
    app = make_app()
    handlers.forget_specialist(app, SPECIALIST.name, SPECIALIST.revision + 1)
    handlers.on_specialist(app, SPECIALIST)
    assert handlers.tick(app) == []
    with pytest.raises(NotFound):
        handlers.find_specialist(app, SPECIALIST.name)
    again = replace(SPECIALIST, revision=SPECIALIST.revision + 2)
    handlers.on_specialist(app, again)
    handlers.forget_specialist(app, SPECIALIST.name, SPECIALIST.revision + 1)
    assert handlers.find_specialist(app, SPECIALIST.name) == again
