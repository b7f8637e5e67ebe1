"""Answers of a base that thinks first: who sees the thought, where it is stored, and what cannot be combined with it."""

import json
from dataclasses import replace

import pytest

from services.inference.domain import BASE, LENGTH, STOPPED, Caller, ChatMessage, GenerationRequest, Sampling
from services.inference.generation import Answer, Cancellation
from services.inference.handlers import generate
from services.inference.web.openai_wire import chunks, completion
from tailor.errors import InvalidArgument
from tailor.thoughts import ThoughtMarkers
from tailor.values import Labels, SamplingDefaults, Thinking
from tests.unit.inference.echo import EchoEngine
from tests.unit.inference.fakes import EVALUATION, KEY, World, make_world, served

ASKED = "Write to Ms Okafor."
UNSET = frozenset({"thinking"})


@pytest.fixture(params=[1, 3, 1000])
def engine(request: pytest.FixtureRequest) -> EchoEngine:
    engine = EchoEngine(request.param)
    engine.thought = ThoughtMarkers("<think>", "</think>")
    engine.prefix = "<think>\nOkafor. Or Iwu?\n</think>\n\n"
    return engine


@pytest.fixture
def world(engine: EchoEngine) -> World:
    world = make_world(engine=engine)
    world.models.table.switch(served("reports", 1))
    return world


def define(world: World, thinking: Thinking, *, private: bool = False) -> None:
    sampling = SamplingDefaults(thinking=thinking)
    world.inference.definitions.define(
        "reports", Labels(), sampling=sampling, private_prompts=private, keep_drafts=True
    )


def ask(world: World, sampling: Sampling = Sampling(), caller: Caller = KEY, request_id: str = "") -> Answer:  # noqa: B008
    request = GenerationRequest("reports", (ChatMessage("user", ASKED),), sampling, UNSET, request_id)
    answer = generate(world.inference, caller, request, Cancellation())
    for _ in answer:
        pass
    return answer


def test_a_hidden_thought_reaches_nobody_and_counts(world: World, engine: EchoEngine) -> None:
    define(world, Thinking.HIDDEN)
    answer = ask(world)
    assert (answer.text, answer.thought, answer.finish_reason) == (ASKED, "", STOPPED)
    assert answer.completion_tokens == -(-len(engine.prefix + ASKED) // engine.size)
    assert engine.given[0].with_control_tokens and engine.thinking == [True]


def test_a_shown_thought_is_apart_from_the_answer_and_not_in_the_draft(world: World) -> None:
    define(world, Thinking.SHOWN)
    answer = ask(world)
    assert (answer.text, answer.thought) == (ASKED, "Okafor. Or Iwu?")
    ((_, transcript),) = world.archive.offered
    assert transcript.answer == ASKED


def test_off_asks_and_answers_as_a_base_that_does_not_think(world: World, engine: EchoEngine) -> None:
    define(world, Thinking.OFF)
    assert ask(world).text == engine.prefix + ASKED
    assert not engine.given[0].with_control_tokens and engine.thinking == [False]


def test_a_base_that_cannot_think_answers_at_once(world: World, engine: EchoEngine) -> None:
    define(world, Thinking.SHOWN)
    engine.thought, engine.prefix = None, ""
    assert (ask(world).text, engine.thinking) == (ASKED, [False])


def test_a_thought_that_fills_the_limit_leaves_an_empty_answer(world: World, engine: EchoEngine) -> None:
    define(world, Thinking.SHOWN)
    engine.prefix, engine.finish = "<think>Hm, ", LENGTH
    answer = ask(world)
    assert (answer.text, answer.thought, answer.finish_reason) == ("", f"Hm, {ASKED}", LENGTH)


def test_private_values_are_back_in_the_thought(world: World) -> None:
    define(world, Thinking.SHOWN, private=True)
    world.anonymizer.pairs = {"Iwu": "Okafor"}
    answer = ask(world)
    assert (answer.text, answer.thought) == (ASKED, "Okafor. Or Okafor?")
    ((_, transcript),) = world.archive.offered
    assert "Okafor" not in transcript.answer


def test_a_stop_text_ends_the_answer_and_not_the_thought(world: World) -> None:
    define(world, Thinking.SHOWN)
    answer = ask(world, Sampling(stop=("Okafor",)))
    assert (answer.text, answer.thought, answer.finish_reason) == ("Write to Ms ", "Okafor. Or Iwu?", STOPPED)


def test_a_schema_is_answered_without_a_thought(world: World, engine: EchoEngine) -> None:
    define(world, Thinking.SHOWN)
    ask(world, Sampling(schema='{"type": "object"}'))
    assert engine.thinking == [False]


def test_refuses_log_probabilities_that_would_be_those_of_a_thought(world: World) -> None:
    define(world, Thinking.HIDDEN)
    with pytest.raises(InvalidArgument, match="NO_LOG_PROBABILITIES"):
        ask(world, Sampling(top_log_probabilities=1))


def test_callers_switch_off_the_thoughts_of_a_specialist_and_on_those_of_the_base(
    world: World, engine: EchoEngine
) -> None:
    define(world, Thinking.HIDDEN)
    off = GenerationRequest("reports", (ChatMessage("user", ASKED),), Sampling())
    shown = replace(off, sampling=Sampling(thinking=Thinking.SHOWN))
    for request in (off, replace(shown, model=BASE)):
        generate(world.inference, KEY, request, Cancellation()).close()
    generate(world.inference, EVALUATION, shown, Cancellation()).close()
    assert engine.thinking == [False, True, True]
    with pytest.raises(InvalidArgument, match=r"sampling\.thinking"):
        generate(world.inference, KEY, shown, Cancellation())


def test_a_repeated_call_gets_the_thought_again(world: World) -> None:
    define(world, Thinking.SHOWN)
    assert [ask(world, request_id="r1").thought for _ in range(2)] == ["Okafor. Or Iwu?"] * 2


def test_openai_clients_get_the_thought_as_reasoning_content(world: World) -> None:
    define(world, Thinking.SHOWN)
    message = completion("reports", ask(world))["choices"][0]["message"]
    assert message == {"role": "assistant", "content": ASKED, "reasoning_content": "Okafor. Or Iwu?"}
    request = GenerationRequest("reports", (ChatMessage("user", ASKED),), Sampling(), UNSET)
    answer = generate(world.inference, KEY, request, Cancellation())
    lines = [*chunks("reports", answer, lambda: None, lambda _: None, usage=False)][:-1]
    deltas = [json.loads(line.removeprefix("data: "))["choices"][0]["delta"] for line in lines]
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "Okafor. Or Iwu?"
    assert "".join(delta.get("content", "") for delta in deltas) == ASKED
