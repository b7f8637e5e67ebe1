"""Private prompts: the model sees surrogates alone, the caller gets the values back, and nothing of either is kept."""

import gc
import json
import weakref
from collections.abc import Sequence
from dataclasses import replace

import grpc
import pytest

from services.inference.adapters.barrier import RemoteBarrier
from services.inference.adapters.openai_wire import chunks, completion
from services.inference.answering import Answer, Cancellation
from services.inference.domain import CANCELLED, LENGTH, STOPPED, Ask, Caller, Sampling, Turn
from services.inference.handlers import generate
from services.inference.private import PrivateStream
from services.inference.restoring import Restorer
from tailor.errors import InvalidArgument, Reason, TailorError, Unavailable
from tests.unit.inference.echo import EchoEngine
from tests.unit.inference.fakes import CONSOLE, EVALUATION, KEY, World, make_world, served

LABELS = ("wiki", "risk", "")
PAIRS = {"Iwu": "Okafor", "Ada": "Ngozi", "Ada Iwu": "Ngozi Okafor", "ada@pike.example": "ngozi@firm.example"}
ASKED = "Write to Ms Ngozi Okafor (ngozi@firm.example)."
SEEN = "Write to Ms Ada Iwu (ada@pike.example)."
RAW = ("Ngozi", "ngozi", "Okafor")


@pytest.fixture(params=[1, 3, 1000])
def engine(request: pytest.FixtureRequest) -> EchoEngine:
    return EchoEngine(request.param)


@pytest.fixture
def world(engine: EchoEngine) -> World:
    made = make_world(engine=engine)
    made.inference.table.switch(served("reports", 1, system_prompt="You are Ward."))
    made.inference.private.define("reports", LABELS)
    made.barrier.pairs = PAIRS
    return made


def ask(text: str = ASKED, model: str = "reports", before: Sequence[Turn] = (), **sampling: object) -> Ask:
    return Ask(model, (*before, Turn("user", text)), replace(Sampling(), **sampling))  # type: ignore[arg-type]


def answered(world: World, question: Ask, caller: Caller = KEY) -> Answer:
    answer = generate(world.inference, caller, question, Cancellation())
    for _ in answer:
        pass
    return answer


def in_memory() -> list[object]:
    """What holds the values of a prompt."""
    return [one for one in gc.get_objects() if type(one) in (PrivateStream, Restorer)]


def test_the_model_sees_no_personal_value_and_the_caller_gets_each_back(world: World, engine: EchoEngine) -> None:
    before = (Turn("user", "I am Okafor."), Turn("assistant", "Hello, Ngozi."))
    answer = answered(world, ask(before=before))
    assert answer.text == ASKED
    assert (answer.finish_reason, answer.completion_tokens) == (STOPPED, -(-len(SEEN) // engine.size))
    (encoded,) = engine.encoded
    assert encoded == (
        Turn("system", "You are Ward."),
        Turn("user", "I am Iwu."),
        Turn("assistant", "Hello, Ada."),
        Turn("user", SEEN),
    )
    ((_, labels, beside),) = world.barrier.asked
    assert (labels, beside) == (LABELS, ("You are Ward.",))


def test_what_is_stated_and_kept_of_a_draft_is_what_the_model_saw(world: World) -> None:
    answered(world, ask())
    ((draft, said),) = world.archive.offered
    assert said.turns == (Turn("user", SEEN),)
    assert said.answer == SEEN
    assert not any(raw in repr((draft, said.turns, said.answer)) for raw in RAW)
    world.inference.private.define("reports", None)
    answered(world, ask(SEEN))
    plain = world.kept.drafts[-1]
    assert (draft.prompt_digest, draft.answer_digest) == (plain.prompt_digest, plain.answer_digest)


def test_a_surrogate_of_another_prompt_is_never_resolved(world: World, engine: EchoEngine) -> None:
    answered(world, ask())
    world.barrier.pairs = {"Rhys": "Hale"}
    engine.prefix = "Ada Iwu, ada@pike.example: "
    assert answered(world, ask("To Hale.")).text == "Ada Iwu, ada@pike.example: To Hale."


def test_once_an_answer_is_closed_no_map_is_in_memory(world: World) -> None:
    cancellation = Cancellation()
    answer = generate(world.inference, KEY, ask(), cancellation)
    maps = [weakref.ref(one) for one in in_memory()]
    assert len(maps) == 2
    for _ in answer:
        pass
    gc.collect()
    assert answer.text == ASKED and [one() for one in maps] == [None, None]
    abandoned = generate(world.inference, KEY, ask(), cancellation)
    next(iter(abandoned))
    abandoned.close()
    gc.collect()
    assert in_memory() == []


def test_the_base_evaluation_and_other_specialists_are_asked_as_ever(world: World, engine: EchoEngine) -> None:
    world.inference.table.switch(served("memos", 1))
    world.inference.private.define("memos", None)
    for question, caller in ((ask(model="base"), KEY), (ask(model="memos"), KEY), (ask(), EVALUATION)):
        assert answered(world, question, caller).text == ASKED
        assert engine.encoded[-1][-1].content == ASKED
    assert world.barrier.asked == []
    assert answered(world, ask(), CONSOLE).text == ASKED and len(world.barrier.asked) == 1


def test_without_the_barrier_the_model_is_not_asked(world: World, engine: EchoEngine) -> None:
    world.barrier.fails = Unavailable(Reason.BARRIER_UNAVAILABLE, "Retry.")
    with pytest.raises(Unavailable) as refused:
        answered(world, ask())
    assert refused.value.reason == "BARRIER_UNAVAILABLE"
    assert engine.encoded == engine.given == [] and world.kept.drafts == []


def test_refuses_log_probabilities_before_the_barrier_is_asked(world: World) -> None:
    with pytest.raises(InvalidArgument) as refused:
        answered(world, ask(top_log_probabilities=0))
    assert refused.value.reason == "NO_LOG_PROBABILITIES" and world.barrier.asked == []


def test_the_specialists_own_system_prompt_from_a_caller_stays(world: World, engine: EchoEngine) -> None:
    answered(world, ask(before=(Turn("system", "You are Ward."),)))
    assert engine.encoded[0][0] == Turn("system", "You are Ward.") and len(engine.encoded[0]) == 2
    assert world.barrier.asked[0][0] == (ASKED,)
    answered(world, ask(before=(Turn("system", "You are Okafor."),)))
    assert engine.encoded[1][0] == Turn("system", "You are Iwu.")


@pytest.mark.parametrize(
    ("stop", "told", "kept"),
    [
        ("Okafor", "Write to Ms Ngozi ", "Write to Ms Ada "),
        ("goz", "Write to Ms N", "Write to Ms Ada"),
        (" (", "Write to Ms Ngozi Okafor", "Write to Ms Ada Iwu"),
    ],
)
def test_stop_texts_hold_for_what_the_caller_gets(
    world: World, engine: EchoEngine, stop: str, told: str, kept: str
) -> None:
    engine.finish = LENGTH
    world.barrier.pairs = {name: value for name, value in PAIRS.items() if name != "Ada Iwu"}
    answer = answered(world, ask(stop=(stop,)))
    assert (answer.text, answer.finish_reason) == (told, STOPPED)
    assert engine.given[0].stop == () and engine.echoes[0].is_cancelled
    assert world.barrier.asked[0][2] == ("You are Ward.", stop)
    assert world.archive.offered[0][1].answer.startswith(kept)
    assert answered(world, ask(stop=("never",))).finish_reason == LENGTH


def test_an_answer_that_is_cut_or_cancelled_says_so(world: World, engine: EchoEngine) -> None:
    engine.finish = LENGTH
    assert answered(world, ask("To Okafor")).finish_reason == LENGTH
    cancellation = Cancellation()
    answer = generate(world.inference, KEY, ask(), cancellation)
    cancellation.cancel()
    assert "".join(piece.text for piece in answer) == "" and answer.finish_reason == CANCELLED


def test_json_answers_stay_json_and_its_choices_reach_the_model_as_surrogates(world: World, engine: EchoEngine) -> None:
    world.barrier.pairs = {**PAIRS, "HL-77": 'say "so"\nhere'}
    schema = {
        "description": "Of Okafor.",
        "properties": {"to": {"enum": ["Okafor", "nobody", 3]}, "by": {"const": "Ngozi"}},
    }
    answer = answered(world, ask('{"to": "Okafor", "note": "HL-77"}', schema=json.dumps(schema)))
    assert json.loads(answer.text) == {"to": "Okafor", "note": 'say "so"\nhere'}
    assert engine.given[0].schema == engine.checked[0]
    assert json.loads(engine.checked[0]) == {
        "properties": {"to": {"enum": ["Iwu", "nobody", 3]}, "by": {"const": "Ada"}}
    }
    with pytest.raises(InvalidArgument) as refused:
        answered(world, ask(schema='{"properties": {"Okafor": {"type": "string"}}}'))
    assert refused.value.reason == "PRIVATE_SCHEMA" and "Okafor" not in refused.value.message


def test_the_openai_door_tells_values_whole_and_streamed(world: World) -> None:
    assert completion("reports", answered(world, ask()))["choices"][0]["message"]["content"] == ASKED
    answer = generate(world.inference, KEY, ask(), Cancellation())
    lines = [line.removeprefix("data: ") for line in chunks("reports", answer, lambda: None, usage=False)]
    deltas = [json.loads(line)["choices"][0]["delta"] for line in lines if not line.startswith("[DONE]")]
    assert "".join(delta.get("content", "") for delta in deltas) == ASKED
    assert not any(name in "".join(lines) for name in ("Iwu", "Ada", "pike"))


def test_whatever_hinders_the_barrier_is_unavailable_but_a_prompt_that_is_too_long() -> None:
    barrier = RemoteBarrier(grpc.insecure_channel("127.0.0.1:1"))
    with pytest.raises(TailorError) as refused:
        barrier.hide(["Okafor"], LABELS, [])
    assert (refused.value.reason, refused.value.retryable) == ("BARRIER_UNAVAILABLE", True)
    assert "Okafor" not in refused.value.message
