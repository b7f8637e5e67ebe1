"""Calls that are repeated under one id: one answer, one draft, for five minutes."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from services.inference import handlers
from services.inference.domain import Caller, ChatMessage, GenerationRequest, LikelyToken, Sampling, TokenLogProbability
from services.inference.generation import Answer, Cancellation
from services.inference.repeated_calls import KEPT_SECONDS, CallId, RepeatedCalls, WholeAnswer
from tailor.errors import Aborted, FailedPrecondition, InvalidArgument, Reason, Unavailable
from tests.unit.inference.fakes import CONSOLE, KEY, World, make_world, served
from tests.waiting import wait_until

OTHER_KEY = Caller("key", "another", frozenset(), "key_0000000000000002")
QUESTION = GenerationRequest("base", (ChatMessage("user", "Write it."),), Sampling(max_tokens=3), request_id="memo-7")
CALL = CallId("key_1", "memo-7", "digest")


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def world(clock: Clock) -> World:
    made = make_world()
    return replace(made, inference=replace(made.inference, repeated_calls=RepeatedCalls(clock)))


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def ask(
    world: World,
    question: GenerationRequest = QUESTION,
    caller: Caller = KEY,
    cancellation: Cancellation | None = None,
) -> Answer:
    answer = handlers.generate(world.inference, caller, question, cancellation or Cancellation())
    for _ in answer:
        pass
    return answer


def whole(text: str = "word", log_probabilities: tuple[TokenLogProbability, ...] = ()) -> WholeAnswer:
    return WholeAnswer("drf_1", served("reports", 1), text, "stop", 2, 3, 0.0, log_probabilities)


def test_a_repeated_call_gets_the_first_answer_and_leaves_no_second_draft(world: World) -> None:
    first, again = ask(world), ask(world)
    assert (again.draft_id, again.text, again.finish_reason) == (first.draft_id, "word word word ", "length")
    assert (again.prompt_tokens, again.completion_tokens, again.moment) == (2, 3, first.moment)
    assert [piece.text for piece in again] == ["word word word "]
    assert len(world.published.drafts) == len(world.engine.streams) == 1


def test_calls_with_other_ids_keys_or_none_are_other_calls(world: World) -> None:
    questions = [
        (QUESTION, KEY),
        (QUESTION, OTHER_KEY),
        (QUESTION, CONSOLE),
        (replace(QUESTION, request_id="memo-8"), KEY),
    ]
    plain = replace(QUESTION, request_id="")
    answers = [ask(world, question, caller) for question, caller in [*questions, (plain, KEY), (plain, KEY)]]
    assert len({answer.draft_id for answer in answers}) == len(answers)


def test_another_request_under_the_same_id_is_refused(world: World) -> None:
    ask(world)
    others = [
        replace(QUESTION, messages=(ChatMessage("user", "Write another."),)),
        replace(QUESTION, sampling=Sampling(max_tokens=4)),
        replace(QUESTION, unset=frozenset({"temperature"})),
    ]
    for other in others:
        with pytest.raises(FailedPrecondition) as caught:
            ask(world, other)
        assert (caught.value.reason, list(caught.value.field_violations)) == ("REQUEST_ID_REUSED", ["request_id"])
    assert len(world.published.drafts) == 1


def test_an_id_has_at_most_128_characters(world: World) -> None:
    with pytest.raises(InvalidArgument) as caught:
        ask(world, replace(QUESTION, request_id="x" * 129))
    assert "request_id" in caught.value.field_violations


def test_a_repeated_call_waits_for_the_first_while_that_runs(world: World, threads: ThreadPoolExecutor) -> None:
    world.engine.gate.clear()
    calls = [threads.submit(ask, world) for _ in range(3)]
    wait_until(lambda: bool(world.engine.streams))
    with pytest.raises(FailedPrecondition):
        ask(world, replace(QUESTION, model="base", sampling=Sampling(max_tokens=9)))
    world.engine.gate.set()
    assert len({call.result(60).draft_id for call in calls}) == 1
    assert len(world.published.drafts) == 1


def test_a_waiting_call_takes_the_place_of_a_first_one_that_is_cancelled(
    world: World, threads: ThreadPoolExecutor
) -> None:
    world.engine.gate.clear()
    gone = Cancellation()
    first = threads.submit(ask, world, cancellation=gone)
    wait_until(lambda: bool(world.engine.streams))
    second = threads.submit(ask, world)
    gone.cancel()
    assert first.result(60).finish_reason == "cancelled"
    wait_until(lambda: len(world.engine.streams) == 2)
    world.engine.gate.set()
    assert second.result(60).finish_reason == "length"
    assert [draft.finish_reason for draft in world.published.drafts] == ["cancelled", "length"]
    assert ask(world).draft_id == second.result().draft_id


def test_a_call_that_leaves_while_it_waits_ends_nothing_else(world: World, threads: ThreadPoolExecutor) -> None:
    world.engine.gate.clear()
    first = threads.submit(ask, world)
    wait_until(lambda: bool(world.engine.streams))
    gone = Cancellation()
    gone.cancel()
    with pytest.raises(Aborted):
        ask(world, cancellation=gone)
    world.engine.gate.set()
    assert first.result(60).finish_reason == "length"


def test_a_call_that_failed_is_not_remembered(world: World) -> None:
    world.engine.fails = Unavailable(Reason.ENGINE_FAILED, "The engine could not answer. Retry.")
    with pytest.raises(Unavailable):
        ask(world)
    world.engine.fails = None
    world.published.down = True
    with pytest.raises(Unavailable):
        ask(world)
    world.published.down = False
    with pytest.raises(InvalidArgument):
        ask(world, replace(QUESTION, messages=(ChatMessage("user", "word " * 99),)))
    assert ask(world).finish_reason == "length"


def test_an_answer_is_forgotten_after_five_minutes(world: World, clock: Clock) -> None:
    first = ask(world)
    clock.seconds = KEPT_SECONDS - 1
    assert ask(world).draft_id == first.draft_id
    clock.seconds = KEPT_SECONDS
    assert ask(world).draft_id != first.draft_id


def test_expired_answers_leave_the_memory_while_nobody_calls(clock: Clock) -> None:
    calls = RepeatedCalls(clock)
    assert calls.begin(CALL, lambda: False) is None
    calls.end(CALL, whole())
    clock.seconds = KEPT_SECONDS
    calls.drop_expired()
    clock.seconds = 0.0
    assert calls.begin(CALL, lambda: False) is None


def test_the_oldest_answers_make_room_for_new_ones(clock: Clock) -> None:
    one = whole("word" * 1000)
    calls = RepeatedCalls(clock, max_bytes=2 * one.size_bytes)
    for number in range(3):
        call = CallId("key_1", f"memo-{number}", "digest")
        assert calls.begin(call, lambda: False) is None
        calls.end(call, one)
    kept = [calls.begin(CallId("key_1", f"memo-{number}", "digest"), lambda: False) for number in range(3)]
    assert kept == [None, one, one]


def test_an_answer_that_is_too_large_is_not_kept(clock: Clock) -> None:
    token = TokenLogProbability(LikelyToken("word ", -0.5), (LikelyToken("word ", -0.5),) * 20)
    large = whole(log_probabilities=(token,) * 10)
    calls = RepeatedCalls(clock, max_bytes=large.size_bytes - 1)
    for _ in range(2):
        assert calls.begin(CALL, lambda: False) is None
        calls.end(CALL, large)
