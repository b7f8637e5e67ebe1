"""Builds make the rows of new documents only, and again those of what is missing or damaged."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from structlog.testing import capture_logs

from services.synthetic.building.segment_parts import PART_DOCUMENTS
from services.synthetic.building.segments import Context, make_segment
from services.synthetic.building.workers import InlineWorkers
from services.synthetic.corpus import UNREADABLE
from tailor.storage.buckets import CORPUS, DATASETS
from tailor.storage.memory import MemoryStore
from tailor.values import Selection
from tests.synthetic import World, distinct, key_of

pytestmark = pytest.mark.integration

T = TypeVar("T")
FORGET_BUILDS = ("DELETE FROM segments", "UPDATE builds SET fingerprint = ''")


class CountingWorkers(InlineWorkers):
    """Remembers the documents whose rows it made."""

    def __init__(self, context: Context, document_ids: list[str]) -> None:
        super().__init__(context)
        self._document_ids = document_ids

    def submit(self, function: Callable[..., T], *arguments: object) -> Callable[[], T]:
        if function is make_segment:
            texts: Any = arguments[0]
            self._document_ids += (text.member.document.document_id for text in texts)
        return super().submit(function, *arguments)


class CountingStore(MemoryStore):
    """Remembers the keys of what was read."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: list[str] = []

    def read(self, bucket: str, key: str) -> bytes:
        self.keys.append(key)
        return super().read(bucket, key)


def stored_files(world: World) -> set[str]:
    return {key for bucket, key in world.store.objects if bucket == DATASETS and key.startswith("files/")}


def parts_of(segment: Any) -> list[str]:
    """The keys of the stored parts of a segment."""
    return [part["ref"]["uri"].partition(f"{DATASETS}/")[2] for part in segment.facts["parts"]]


def test_new_documents_do_not_make_the_rows_of_earlier_ones_again_until_their_segment_is_full(world: World) -> None:
    made = list[str]()
    workers: Any = lambda context, _: nullcontext(CountingWorkers(context, made))  # noqa: E731
    world.app = replace(world.app, start_workers=workers)
    world.fill(count=4 * PART_DOCUMENTS)
    world.build()
    made.clear()
    world.fill(500, 3)
    digest = world.build().digest
    held_out = {key for key, side in world.repository.sides("reports", made).items() if side}
    assert {key_of(number) for number in range(500, 503)} <= set(made)
    assert len(set(made) - held_out) < PART_DOCUMENTS
    (segment,) = world.segments()
    assert len(parts_of(segment)) > 1
    # A part whose file is gone is made again, and all rows without stored ones are the same.
    for key in parts_of(segment):
        world.store.delete(DATASETS, key)
    world.run_sql(*FORGET_BUILDS)
    assert world.build().digest == digest and stored_files(world) == world.listed_keys()
    world.fill(600, 5)
    world.preparer.prepare(Selection())
    world.run_sql("UPDATE sketches SET arrival = arrival + 256 WHERE document_id >= '" + key_of(600) + "'")
    world.build()
    full, growing = world.segments()
    assert parts_of(growing) and not parts_of(full) and stored_files(world) == world.listed_keys()


def test_new_held_out_rows_are_compared_with_unchanged_segments_without_reading_their_rows(world: World) -> None:
    world = World(world.engine, store := CountingStore())
    house = "This paper is for the board of the company and may not be shown to anybody else before the spring."

    def publish(first: int, last: int) -> None:
        for number in range(first, last):
            world.put(number, text=f"{distinct(number)}\n\n{house}")

    publish(0, 40)
    world.preparer.prepare(Selection())
    world.run_sql("UPDATE sketches SET arrival = arrival * 256")
    first = world.build()
    publish(40, 80)
    store.keys.clear()
    second = world.build()
    read = set(store.keys)
    assert second.held_out_rows > first.held_out_rows
    files = [{file.ref.key for file in world.manifest(it.digest).split("train").files} for it in (first, second)]
    assert len(files[0] & files[1]) > 20 and not files[0] & files[1] & read
    shares = [row.shares for row in world.segments()]
    assert any(shares)
    world.run_sql(*FORGET_BUILDS)
    assert world.build().digest == second.digest and [row.shares for row in world.segments()] == shares


def test_a_segment_is_made_again_although_an_erasure_took_a_text_meanwhile(world: World) -> None:
    world.fill()
    world.build()
    (segment,) = world.segments()
    sides = world.repository.sides("reports", [key_of(number) for number in range(40)])
    gone = next(key for key, is_held_out in sides.items() if not is_held_out)
    # Other rows would be kept now, as after a change of an earlier segment.
    world.run_sql('UPDATE segments SET facts = facts || \'{"kept": "", "parts": []}\'', FORGET_BUILDS[1])
    for bucket, key in [it for it in world.store.objects if gone in it[1]]:
        world.store.delete(bucket, key)
    world.build()
    (remade,) = world.segments()
    assert 0 < len(remade.answers) < len(segment.answers)


def damage(world: World, bucket: str, key: str) -> bytes:
    """Flip the last byte of an object. Returns its former bytes."""
    data = world.store.objects[bucket, key]
    world.store.objects[bucket, key] = data[:-1] + bytes([data[-1] ^ 1])
    return data


@pytest.mark.parametrize("is_known", [False, True], ids=["when it comes", "after it was prepared"])
def test_a_damaged_text_is_named_and_skipped_until_it_is_restored(world: World, is_known: bool) -> None:
    world.fill(count=PART_DOCUMENTS + 10)
    if is_known:
        world.preparer.prepare(Selection())
    (text,) = [key for bucket, key in world.store.objects if bucket == CORPUS and key_of(7) in key]
    whole = damage(world, CORPUS, text)
    with capture_logs() as logs:
        dataset = world.build()
    assert dataset.skipped[UNREADABLE].documents == 1 and dataset.train_rows
    named = [line for line in logs if line["event"] == "document left out"]
    assert {(line["document_id"], line["uri"], line["reason"]) for line in named} == {
        (key_of(7), f"s3://corpus/{text}", "CORRUPT_OBJECT")
    }
    world.store.objects[CORPUS, text] = whole
    rebuilt = world.build()
    assert UNREADABLE not in rebuilt.skipped and rebuilt.documents == dataset.documents + 1
    assert world.build().digest == rebuilt.digest


def test_damaged_files_of_a_segment_are_made_again_and_a_build_again_makes_every_file(world: World) -> None:
    world.fill()
    digest = world.build().digest
    (segment,) = world.segments()
    read = [segment.facts[name]["ref"]["uri"].partition(f"{DATASETS}/")[2] for name in ("sources", "grams")]
    files = {key: damage(world, DATASETS, key) for key in read}
    world.run_sql(FORGET_BUILDS[1])
    assert world.build().digest == digest
    assert {key: world.store.objects[DATASETS, key] for key in files} == files
    files = {key: damage(world, DATASETS, key) for bucket, key in list(world.store.objects) if bucket == DATASETS}
    assert world.build().digest == digest
    again = world.build_result(again=True)
    assert (again.dataset.digest, again.created) == (digest, False)
    listed = world.listed_keys() | {f"{digest}/manifest.json"}
    assert all(world.store.objects[DATASETS, key] == data for key, data in files.items() if key in listed)
