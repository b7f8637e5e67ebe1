"""The parts of a segment, and builds that make the rows of new documents only."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import TypeVar

import numpy
import pytest
from structlog.testing import capture_logs

from services.synthetic import handlers
from services.synthetic.building.grams import make_gram_set
from services.synthetic.building.parts import ARRAYS, PART_DOCUMENTS, join_parts, read_raw, split_members, write_raw
from services.synthetic.building.segments import (
    Context,
    RawSegment,
    SegmentTask,
    make_segment,
    write_segment,
)
from services.synthetic.building.workers import InlineWorkers
from services.synthetic.corpus import SEGMENT_DOCUMENTS, UNREADABLE, Member
from tailor.storage.buckets import CORPUS, DATASETS
from tests.unit.synthetic import row_texts
from tests.unit.synthetic.fakes import SPECIALIST, FakeSynthetic, WordCounter, make_app, put_document
from tests.unit.synthetic.row_texts import make_document, plain

TEXTS = [text for _, text in row_texts.ALL.values()]
ALL_DRAWS = 1 << 32
T = TypeVar("T")


class CountingWorkers(InlineWorkers):
    """Remembers the documents whose rows it made."""

    def __init__(self, context: Context, document_ids: list[str]) -> None:
        super().__init__(context)
        self._document_ids = document_ids

    def submit(self, function: Callable[..., T], *arguments: object) -> Callable[[], T]:
        for task in arguments:
            if isinstance(task, SegmentTask):
                self._document_ids += (member.document.document_id for member in task.members)
        return super().submit(function, *arguments)


def context() -> Context:
    return Context(SPECIALIST, WordCounter())


def make_raw(numbers: Sequence[int]) -> RawSegment:
    documents = [replace(make_document(TEXTS[number]), document_id=f"doc_{number:032d}") for number in numbers]
    texts = {document.document_id: plain(TEXTS[number]) for number, document in zip(numbers, documents, strict=True)}
    members = tuple(Member(document, 1000) for document in documents)
    return make_segment(context(), SegmentTask(members, texts, {}, ALL_DRAWS))


def test_rows_that_are_made_in_parts_are_those_that_are_made_at_once() -> None:
    numbers = range(len(TEXTS))
    whole = make_raw(numbers)
    parts = join_parts([make_raw(numbers[:3]), make_raw(numbers[3:4]), make_raw(numbers[4:])])
    assert parts.ids == whole.ids and parts.skipped == whole.skipped
    assert list(parts.skipped) == list(whole.skipped)
    for name in ARRAYS:
        assert numpy.array_equal(getattr(parts, name), getattr(whole, name)), name
    answers = ["No document has these words: the harbour bell rang twice before any of the ferries left the quay."]
    held_out = make_gram_set(answers)
    kept = [number % 3 > 0 for number in range(whole.rows)]
    first, second = (write_segment(context(), raw, kept, held_out, ALL_DRAWS) for raw in (whole, parts))
    assert first == second and first.closed_book.counts.rows > 0


def test_a_stored_part_is_what_was_made() -> None:
    raw = make_raw(range(4))
    data = write_raw(raw)
    again = read_raw(data)
    assert (again.ids, again.skipped, again.tables, again.closed_book) == (
        raw.ids,
        raw.skipped,
        raw.tables,
        raw.closed_book,
    )
    for name in ARRAYS:
        assert numpy.array_equal(getattr(again, name), getattr(raw, name)), name
    assert write_raw(again) == data == write_raw(make_raw(range(4)))


def test_documents_that_are_added_change_only_the_last_part() -> None:
    members = [Member(replace(make_document(TEXTS[0]), document_id=f"doc_{number}"), 1) for number in range(40)]
    before, after = split_members(members[:34]), split_members(members)
    assert before[:2] == after[:2] and [len(part) for part in after] == [PART_DOCUMENTS, PART_DOCUMENTS, 8]
    assert split_members([]) == [[]]


def filled(count: int, **changes: object) -> FakeSynthetic:
    app = make_app(**changes)
    add(app, range(count))
    return app


def add(app: FakeSynthetic, numbers: Sequence[int]) -> None:
    for number in numbers:
        handlers.on_document(app, put_document(app.store, number))


def build(app: FakeSynthetic) -> str:
    return handlers.build_dataset(app, "reports", "").dataset.digest


def stored_files(app: FakeSynthetic) -> set[str]:
    return {key for bucket, key in app.store.objects if bucket == DATASETS and key.startswith("files/")}


def test_new_documents_do_not_make_the_rows_of_earlier_ones_again() -> None:
    document_ids = list[str]()
    app = filled(
        6 * PART_DOCUMENTS, start_workers=lambda context, _: nullcontext(CountingWorkers(context, document_ids))
    )
    build(app)
    document_ids.clear()
    add(app, range(500, 503))
    digest = build(app)
    held_out = {assignment.document_id for assignment in app.repository.assignments.values() if assignment.held_out}
    train = set(document_ids) - held_out
    assert {f"doc_{number:032d}" for number in range(500, 503)} <= set(document_ids)
    assert len(train) < PART_DOCUMENTS
    app.repository.segments.clear()
    app.repository.builds.clear()
    assert build(app) == digest
    assert stored_files(app) == app.repository.listed_keys()


def test_a_part_whose_file_is_gone_is_made_again() -> None:
    app = filled(PART_DOCUMENTS + 30)
    build(app)
    (segment,) = app.repository.segments.values()
    assert len(segment.parts) > 1
    for part in segment.parts:
        app.store.delete(DATASETS, part.ref.key)
    add(app, [500])
    digest = build(app)
    app.repository.segments.clear()
    app.repository.builds.clear()
    assert build(app) == digest


def test_a_segment_is_made_again_although_an_erasure_took_a_text_meanwhile() -> None:
    app = filled(40)
    build(app)
    place, segment = next(iter(app.repository.segments.items()))
    # Other rows would be kept now, as after a change of an earlier segment.
    app.repository.segments[place] = replace(segment, kept="", parts=())
    app.repository.builds.clear()
    gone = next(each.document_id for each in app.repository.assignments.values() if not each.held_out)
    for bucket, key in [item for item in app.store.objects if gone in item[1]]:
        app.store.delete(bucket, key)
    build(app)
    remade = app.repository.segments[place]
    assert 0 < len(remade.answers) < len(segment.answers)


def test_a_segment_to_which_no_documents_come_keeps_no_parts() -> None:
    app = filled(60)
    build(app)
    assert app.repository.segments["reports", 0].parts
    app.repository.arrivals |= {f"doc_{number:032d}": SEGMENT_DOCUMENTS + number - 500 for number in range(500, 510)}
    add(app, range(500, 510))
    build(app)
    assert not app.repository.segments["reports", 0].parts and app.repository.segments["reports", 1].parts
    assert stored_files(app) == app.repository.listed_keys()


def damage(app: FakeSynthetic, bucket: str, key: str) -> bytes:
    """Flip the last byte of an object. Returns its former bytes."""
    data = app.store.objects[bucket, key]
    app.store.objects[bucket, key] = data[:-1] + bytes([data[-1] ^ 1])
    return data


@pytest.mark.parametrize("is_known", [False, True], ids=["when it comes", "after it was prepared"])
def test_a_damaged_text_is_named_and_skipped_until_it_is_restored(is_known: bool) -> None:
    app = filled(PART_DOCUMENTS + 30)
    if is_known:
        app.preparer.prepare(SPECIALIST.selection)
    document_id = f"doc_{7:032d}"
    (text,) = [key for bucket, key in app.store.objects if bucket == CORPUS and document_id in key]
    whole = damage(app, CORPUS, text)
    with capture_logs() as logs:
        dataset = handlers.build_dataset(app, "reports", "").dataset
    assert dataset.skipped[UNREADABLE].documents == 1 and dataset.train_rows
    named = [line for line in logs if line["event"] == "document left out"]
    assert {(line["document_id"], line["uri"], line["reason"]) for line in named} == {
        (document_id, f"s3://corpus/{text}", "CORRUPT_OBJECT")
    }
    app.store.objects[CORPUS, text] = whole
    rebuilt = handlers.build_dataset(app, "reports", "").dataset
    assert UNREADABLE not in rebuilt.skipped
    assert rebuilt.documents == dataset.documents + 1
    assert build(app) == rebuilt.digest


def test_damaged_files_of_a_segment_are_made_again() -> None:
    app = filled(PART_DOCUMENTS + 30)
    digest = build(app)
    (segment,) = app.repository.segments.values()
    read = [file.ref.key for file in (segment.sources, segment.grams) if file is not None]
    files = {key: damage(app, DATASETS, key) for key in read}
    app.repository.builds.clear()
    assert build(app) == digest
    assert len(read) == 2 and {key: app.store.objects[DATASETS, key] for key in files} == files


def test_a_build_again_makes_every_file_again() -> None:
    app = filled(PART_DOCUMENTS + 30)
    digest = build(app)
    files = {key: damage(app, DATASETS, key) for bucket, key in list(app.store.objects) if bucket == DATASETS}
    assert handlers.build_dataset(app, "reports", "").dataset.digest == digest
    again = handlers.build_dataset(app, "reports", "", again=True)
    assert (again.dataset.digest, again.created) == (digest, False)
    listed = app.repository.listed_keys() | {f"{digest}/manifest.json"}
    assert {key: app.store.objects[DATASETS, key] for key in files if key in listed} == {
        key: data for key, data in files.items() if key in listed
    }
