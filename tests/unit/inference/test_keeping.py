"""Texts of drafts on their way through the barrier."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.inference.adapters.drafts import DraftBucket
from services.inference.adapters.journal import Journal
from services.inference.adapters.statements import DRAFTS, DraftEvents
from services.inference.domain import Draft, Said, Turn
from services.inference.keeping import ATTEMPTS, MAX_AGE_SECONDS, MAX_CHARACTERS, Keeper, Keeping, Labels
from tailor.errors import FailedPrecondition, Reason, Unavailable
from tailor.events.memory import MemoryProducer
from tailor.storage.memory import MemoryStore
from tests.unit.inference.fakes import Kept, served

LABELS = ("wiki", "risk", "")
SAID = Said((Turn("user", "Write to Ngozi Okafor."), Turn("assistant", "Why?"), Turn("user", "Soon.")), "Dear Ngozi")


class Barrier:
    """Replaces one name; fails as often as it is told to."""

    def __init__(self) -> None:
        self.failures: list[Exception] = []
        self.asked: list[Labels] = []
        self.gate = threading.Event()
        self.gate.set()

    def anonymize(self, texts: Sequence[str], labels: Labels) -> tuple[str, ...]:
        self.gate.wait(5)
        self.asked.append(labels)
        if self.failures:
            raise self.failures.pop(0)
        return tuple(text.replace("Ngozi", "Ines").replace("Okafor", "Marsh") for text in texts)


class World:
    def __init__(self) -> None:
        self.keeping = Keeping()
        self.keeping.begin("reports", LABELS)
        self.barrier = Barrier()
        self.store = MemoryStore()
        self.stated = Kept()
        self.seconds = 0.0
        bucket = DraftBucket(self.store)
        self.keeper = Keeper(
            self.keeping, self.barrier, bucket, self.stated, first_pause_seconds=0.01, now=lambda: self.seconds
        )

    @contextmanager
    def running(self) -> Iterator[None]:
        stop = threading.Event()
        thread = threading.Thread(target=self.keeper.run, args=(stop,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(5)
            assert not thread.is_alive()


@pytest.fixture
def world() -> World:
    return World()


def draft(number: int = 1, specialist: str = "reports", finish: str = "stop") -> Draft:
    return Draft(f"drf_{number}", served(specialist, 1), "key_1", "aa", "bb", 4, 3, finish, 0.1, 0.5)


def wait_until(true: Callable[[], bool], seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_only_surrogates_are_kept_and_the_draft_is_stated_once_more(world: World) -> None:
    with world.running():
        world.keeper.keep(draft(), SAID)
        wait_until(lambda: bool(world.stated.drafts))
    ((bucket, key), data), *others = world.store.objects.items()
    assert (bucket, others) == ("drafts", [])
    assert b"Ngozi" not in data and b"Okafor" not in data
    value = json.loads(data)
    assert value["answer"] == "Dear Ines"
    assert [one["role"] for one in value["messages"]] == ["user", "assistant", "user"]
    (stated,) = world.stated.drafts
    assert stated.text is not None and stated.text.key == key == f"texts/{stated.text.sha256}.json"
    assert stated.moment and stated.draft_id == "drf_1"
    assert world.barrier.asked == [LABELS]


def test_nothing_is_taken_of_who_did_not_ask_for_it_or_of_what_was_cancelled(world: World) -> None:
    world.keeper.keep(draft(specialist="memos"), SAID)
    world.keeper.keep(draft(specialist=""), SAID)
    world.keeper.keep(draft(finish="cancelled"), SAID)
    world.keeper.keep(draft(), Said(SAID.turns, " "))
    with world.running():
        time.sleep(0.1)
    assert not world.barrier.asked and not world.store.objects


def test_an_opt_out_holds_for_what_waits_already(world: World) -> None:
    world.keeper.keep(draft(), SAID)
    world.keeping.end("reports")
    with world.running():
        time.sleep(0.1)
    assert not world.barrier.asked and not world.store.objects


def test_a_barrier_that_is_away_for_a_moment_is_asked_again(world: World) -> None:
    world.barrier.failures = [Unavailable(Reason("AWAY"), "Away."), Unavailable(Reason("AWAY"), "Away.")]
    with world.running():
        world.keeper.keep(draft(), SAID)
        wait_until(lambda: bool(world.stated.drafts))
    assert len(world.barrier.asked) == 3


@pytest.mark.parametrize(
    ("failures", "tries"),
    [
        ([Unavailable(Reason("AWAY"), "Away.")] * 9, ATTEMPTS),
        ([FailedPrecondition(Reason.TEXTS_NOT_APART, "No.")] * 9, 1),
    ],
)
def test_a_text_that_does_not_pass_is_dropped_and_the_next_one_goes_on(
    world: World, failures: list[Exception], tries: int
) -> None:
    world.barrier.failures = failures[:tries]
    with world.running():
        world.keeper.keep(draft(1), SAID)
        world.keeper.keep(draft(2), SAID)
        wait_until(lambda: bool(world.stated.drafts))
    assert [one.draft_id for one in world.stated.drafts] == ["drf_2"]
    assert len(world.barrier.asked) == tries + 1


def test_what_waited_too_long_is_dropped(world: World) -> None:
    world.keeper.keep(draft(), SAID)
    world.seconds = MAX_AGE_SECONDS + 1
    with world.running():
        time.sleep(0.1)
    assert not world.barrier.asked and not world.stated.drafts


def test_no_more_waits_than_its_bound_and_nobody_is_held_up(world: World) -> None:
    big = Said((Turn("user", "x" * (MAX_CHARACTERS // 2)),), "y")
    started = time.monotonic()
    for number in range(4):
        world.keeper.keep(draft(number), big)
    assert time.monotonic() - started < 1
    with world.running():
        wait_until(lambda: bool(world.stated.drafts))
        world.keeper.keep(draft(9), SAID)
        wait_until(lambda: len(world.stated.drafts) == 2)
    assert [one.draft_id for one in world.stated.drafts] == ["drf_0", "drf_9"]


def test_the_second_statement_of_a_draft_is_another_event_of_the_same_moment(world: World, tmp_path: Path) -> None:
    producer = MemoryProducer()
    events = DraftEvents(producer, Journal(tmp_path / "drafts.sqlite", 10), "tiny")
    stop = threading.Event()
    thread = threading.Thread(target=events.run, args=(stop,))
    thread.start()
    keeper = Keeper(world.keeping, world.barrier, DraftBucket(world.store), events)
    stated = draft()
    events.add(stated)
    keeper.keep(stated, SAID)
    runner = threading.Thread(target=keeper.run, args=(stop,))
    runner.start()
    wait_until(lambda: len(producer.messages(DRAFTS)) == 2)
    stop.set()
    thread.join(5)
    runner.join(5)
    first, second = producer.messages(DRAFTS)
    assert not first.HasField("text") and second.text.uri.startswith("s3://drafts/texts/")  # type: ignore[attr-defined]
    assert first.create_time == second.create_time  # type: ignore[attr-defined]
