"""How much of the device's time each answer used."""

import threading
from dataclasses import replace

import pytest

from services.inference import handlers
from services.inference.compute_meter import ComputeMeter
from services.inference.domain import ChatMessage, GenerationRequest, Sampling
from services.inference.generation import Cancellation
from services.inference.ports import Stream
from services.inference.wire import from_draft, to_record
from tailor.errors import Reason, TailorError, Unavailable
from tests.unit.inference.fakes import EVALUATION, KEY, FakeEngine, World, make_world

REQUEST = GenerationRequest("base", (ChatMessage("user", "Write."),), Sampling(max_tokens=2))


class Clock:
    def __init__(self) -> None:
        self.moment = 100.0

    def __call__(self) -> float:
        return self.moment


def test_one_answer_uses_all_the_time() -> None:
    clock = Clock()
    share = ComputeMeter("1 x H100", clock).start()
    clock.moment += 4
    share.end()
    clock.moment += 7
    share.end()
    assert (share.seconds, share.device) == (4, "1 x H100")


def test_answers_at_the_same_time_share_it_and_add_up_to_the_busy_time() -> None:
    clock = Clock()
    meter = ComputeMeter("1 x H100", clock)
    first = meter.start()
    clock.moment += 2
    second, third = meter.start(), meter.start()
    clock.moment += 3
    second.end()
    clock.moment += 4
    first.end()
    clock.moment += 1
    third.end()
    clock.moment += 50
    fourth = meter.start()
    clock.moment += 5
    fourth.end()
    assert (first.seconds, second.seconds, third.seconds) == (2 + 1 + 2, 1, 1 + 2 + 1)
    assert first.seconds + second.seconds + third.seconds == 10
    assert fourth.seconds == 5


def test_many_threads_never_use_more_than_the_time_that_passed() -> None:
    clock, lock = Clock(), threading.Lock()
    total: list[float] = []
    meter = ComputeMeter("1 x H100", clock)

    def answer() -> None:
        for _ in range(200):
            share = meter.start()
            with lock:
                clock.moment += 1
            share.end()
            with lock:
                total.append(share.seconds)

    threads = [threading.Thread(target=answer) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(total) == pytest.approx(1600)


@pytest.fixture
def clock() -> Clock:
    return Clock()


class RefusingEngine(FakeEngine):
    """Refuses the first answer."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def generate(self, prompt: tuple[int, ...], adapter: str, sampling: Sampling) -> Stream:
        self.asked += 1
        if self.asked == 1:
            raise Unavailable(Reason.ENGINE_FAILED, "It broke.")
        return super().generate(prompt, adapter, sampling)


def meter_world(clock: Clock, engine: FakeEngine | None = None) -> World:
    world = make_world(engine=engine)
    models = replace(world.inference.models, meter=ComputeMeter("2 CPU cores", clock))
    return replace(world, inference=replace(world.inference, models=models))


@pytest.fixture
def world(clock: Clock) -> World:
    return meter_world(clock)


def ask(world: World, clock: Clock) -> None:
    answer = handlers.generate(world.inference, KEY, REQUEST, Cancellation())
    for piece in answer:
        clock.moment += 30 if piece.finish else 2


def test_a_draft_says_what_its_answer_used(world: World, clock: Clock) -> None:
    ask(world, clock)
    (draft,) = world.published.drafts
    # What the reader does with the last piece is not computed.
    assert (draft.compute_seconds, draft.compute_device) == (2, "2 CPU cores")
    record = to_record(from_draft(draft, "tiny")).draft
    assert (record.compute_seconds, record.compute_device) == (2, "2 CPU cores")


def test_an_evaluation_shares_the_time_of_callers(world: World, clock: Clock) -> None:
    other = handlers.generate(world.inference, EVALUATION, REQUEST, Cancellation())
    ask(world, clock)
    other.close()
    (draft,) = world.published.drafts
    assert draft.compute_seconds == 1


def test_answers_that_fail_or_are_left_use_what_was_computed_until_then(world: World, clock: Clock) -> None:
    world.engine.fails = Unavailable(Reason.ENGINE_FAILED, "It broke.")
    with pytest.raises(TailorError):
        ask(world, clock)
    left = handlers.generate(world.inference, KEY, REQUEST, Cancellation())
    clock.moment += 5
    left.close()
    assert [draft.compute_seconds for draft in world.published.drafts] == [2, 5]


def test_an_answer_that_cannot_begin_leaves_nothing_running(clock: Clock) -> None:
    world = meter_world(clock, RefusingEngine())
    with pytest.raises(Unavailable):
        ask(world, clock)
    ask(world, clock)
    assert [draft.compute_seconds for draft in world.published.drafts] == [2]
