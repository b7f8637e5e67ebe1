"""Texts of drafts on their way through anonymization."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from services.inference.adapters.drafts import DraftBucket
from services.inference.adapters.events import DRAFTS, DraftPublisher, Journal
from services.inference.definitions import Definitions
from services.inference.domain import ChatMessage, Draft, PromptRecord, Transcript
from services.inference.draft_texts import ATTEMPTS, MAX_AGE_SECONDS, MAX_CHARACTERS, DraftTextStore
from tailor.api.events.v1 import drafts_pb2
from tailor.errors import FailedPrecondition, Reason, Unavailable
from tailor.events.memory import MemoryProducer
from tailor.storage.memory import MemoryStore
from tailor.values import Labels
from tests.unit.inference.fakes import FakeAnonymizer, Published, served
from tests.waiting import wait_until

LABELS = Labels("wiki", "risk")
TRANSCRIPT = Transcript(
    (ChatMessage("user", "Write to Ngozi Okafor."), ChatMessage("assistant", "Why?"), ChatMessage("user", "Soon.")),
    "Dear Ngozi",
)


class World:
    def __init__(self) -> None:
        self.definitions = Definitions()
        self.definitions.define("reports", LABELS, keep_drafts=True)
        self.anonymizer = FakeAnonymizer({"Ines": "Ngozi", "Marsh": "Okafor"})
        self.bucket = MemoryStore()
        self.published = Published()
        self.seconds = 0.0
        self.texts = self.make_texts(self.published.draft)

    def make_texts(self, publish: Callable[[Draft], None]) -> DraftTextStore:
        return DraftTextStore(
            self.definitions,
            self.anonymizer,
            DraftBucket(self.bucket).put,
            publish,
            first_pause_seconds=0.01,
            now=lambda: self.seconds,
        )

    def store(self, draft: Draft, *, is_anonymized: bool = False) -> None:
        """Keep a text and wait until it is stored; those that waited before it have had their turn then."""
        self.texts.keep(draft, replace(TRANSCRIPT, anonymized=is_anonymized))
        wait_until(lambda: draft.draft_id in [published.draft_id for published in self.published.drafts])

    @contextmanager
    def running(self) -> Iterator[None]:
        stop = threading.Event()
        thread = threading.Thread(target=self.texts.run, args=(stop,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(60)
            assert not thread.is_alive()


@pytest.fixture
def world() -> World:
    return World()


def draft(number: int = 1, specialist: str = "reports", finish: str = "stop") -> Draft:
    return Draft(f"drf_{number}", served(specialist, 1), "key_1", PromptRecord("aa"), "bb", 4, 3, finish, 0.1, 0.5)


def test_stores_surrogates_only_and_publishes_the_draft_again(world: World) -> None:
    with world.running():
        world.texts.keep(draft(), TRANSCRIPT)
        wait_until(lambda: bool(world.published.drafts))
    ((bucket, key), data), *others = world.bucket.objects.items()
    assert (bucket, others) == ("drafts", [])
    assert b"Ngozi" not in data and b"Okafor" not in data
    value = json.loads(data)
    assert value["answer"] == "Dear Ines"
    assert [message["role"] for message in value["messages"]] == ["user", "assistant", "user"]
    (published,) = world.published.drafts
    assert published.text is not None and published.text.key == key == f"texts/{published.text.sha256}.json"
    assert published.moment and published.draft_id == "drf_1"
    assert world.anonymizer.anonymized == [LABELS]


def test_ignores_specialists_that_keep_nothing_and_cancelled_or_empty_answers(world: World) -> None:
    world.texts.keep(draft(specialist="memos"), TRANSCRIPT)
    world.texts.keep(draft(specialist=""), TRANSCRIPT)
    world.texts.keep(draft(finish="cancelled"), TRANSCRIPT)
    world.texts.keep(draft(), Transcript(TRANSCRIPT.messages, " "))
    with world.running():
        world.store(draft(2))
    assert len(world.anonymizer.anonymized) == len(world.bucket.objects) == 1
    assert [published.draft_id for published in world.published.drafts] == ["drf_2"]


def test_an_opt_out_applies_to_texts_that_wait_already(world: World) -> None:
    world.texts.keep(draft(), TRANSCRIPT)
    world.definitions.define("reports", LABELS)
    world.definitions.define("memos", LABELS, keep_drafts=True)
    with world.running():
        world.store(draft(2, specialist="memos"))
    assert len(world.anonymizer.anonymized) == len(world.bucket.objects) == 1
    assert [published.draft_id for published in world.published.drafts] == ["drf_2"]


def test_retries_while_anonymization_does_not_answer(world: World) -> None:
    world.anonymizer.failures = [Unavailable(Reason("AWAY"), "Away."), Unavailable(Reason("AWAY"), "Away.")]
    with world.running():
        world.texts.keep(draft(), TRANSCRIPT)
        wait_until(lambda: bool(world.published.drafts))
    assert len(world.anonymizer.anonymized) == 3


def test_a_text_that_anonymization_refuses_is_dropped_and_the_next_is_stored(world: World) -> None:
    world.anonymizer.failures = [FailedPrecondition(Reason.LANGUAGE_NOT_COVERED, "No.")]
    with world.running():
        world.texts.keep(draft(1), TRANSCRIPT)
        world.texts.keep(draft(2), TRANSCRIPT)
        wait_until(lambda: bool(world.published.drafts))
    assert [published.draft_id for published in world.published.drafts] == ["drf_2"]
    assert len(world.anonymizer.anonymized) == 2


def test_texts_wait_in_turn_until_anonymization_is_back(world: World) -> None:
    world.anonymizer.failures = [Unavailable(Reason("AWAY"), "Away.")] * (ATTEMPTS * 7)
    world.texts.keep(draft(1), TRANSCRIPT)
    world.texts.keep(draft(2), TRANSCRIPT)
    with world.running():
        wait_until(lambda: len(world.published.drafts) == 2)
    # Seven turns failed: the first text's four and the second's three.
    assert [published.draft_id for published in world.published.drafts] == ["drf_2", "drf_1"]


def test_a_text_is_dropped_if_anonymization_is_away_for_too_long(world: World) -> None:
    world.anonymizer.failures = [Unavailable(Reason("AWAY"), "Away.")] * 10_000
    world.texts.keep(draft(), TRANSCRIPT)
    with world.running():
        wait_until(lambda: len(world.anonymizer.anonymized) > ATTEMPTS)
        world.seconds = MAX_AGE_SECONDS + 1
        world.store(draft(2), is_anonymized=True)
        # The old text would be stored now, in its turn, if it still waited.
        world.anonymizer.failures.clear()
        world.store(draft(3))
        world.store(draft(4))
    assert [published.draft_id for published in world.published.drafts] == ["drf_2", "drf_3", "drf_4"]


def test_drops_a_text_that_waited_too_long(world: World) -> None:
    world.texts.keep(draft(), TRANSCRIPT)
    world.seconds = MAX_AGE_SECONDS + 1
    with world.running():
        world.store(draft(2))
    assert len(world.anonymizer.anonymized) == 1
    assert [published.draft_id for published in world.published.drafts] == ["drf_2"]


def test_drops_texts_beyond_the_limit_without_blocking_callers(world: World) -> None:
    big = Transcript((ChatMessage("user", "x" * (MAX_CHARACTERS // 2)),), "y")
    # Nothing is stored yet: a caller that waited for room would wait for ever.
    for number in range(4):
        world.texts.keep(draft(number), big)
    assert not world.anonymizer.anonymized
    with world.running():
        wait_until(lambda: bool(world.published.drafts))
        world.texts.keep(draft(9), TRANSCRIPT)
        wait_until(lambda: len(world.published.drafts) == 2)
    assert [published.draft_id for published in world.published.drafts] == ["drf_0", "drf_9"]


def test_the_draft_with_its_text_is_another_event_of_the_same_time(world: World, tmp_path: Path) -> None:
    producer = MemoryProducer()
    events = DraftPublisher(producer, Journal(tmp_path / "drafts.sqlite", 10), "tiny")
    stop = threading.Event()
    sender = threading.Thread(target=events.run, args=(stop,))
    sender.start()
    texts = world.make_texts(events.publish)
    published = draft()
    events.publish(published)
    texts.keep(published, TRANSCRIPT)
    storer = threading.Thread(target=texts.run, args=(stop,))
    storer.start()
    wait_until(lambda: len(producer.messages(DRAFTS)) == 2)
    stop.set()
    sender.join(60)
    storer.join(60)
    first, second = (message for message in producer.messages(DRAFTS) if isinstance(message, drafts_pb2.DraftCreated))
    assert not first.HasField("text") and second.text.uri.startswith("s3://drafts/texts/")
    assert first.create_time == second.create_time


def test_a_text_that_has_passed_the_barrier_is_stored_as_it_is(world: World) -> None:
    with world.running():
        world.texts.keep(draft(), replace(TRANSCRIPT, anonymized=True))
        wait_until(lambda: bool(world.published.drafts))
    (data,) = world.bucket.objects.values()
    assert json.loads(data)["answer"] == "Dear Ngozi"
    assert not world.anonymizer.anonymized
