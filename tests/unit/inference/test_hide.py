"""Private prompts: the model sees surrogates only, the caller gets the values back, and neither is stored."""

import gc
import json
import weakref
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import grpc
import pytest

from services.inference.adapters.anonymization import AnonymizationClient
from services.inference.domain import CANCELLED, LENGTH, STOPPED, Caller, ChatMessage, GenerationRequest, Sampling
from services.inference.generation import Answer, Cancellation
from services.inference.handlers import generate
from services.inference.private_prompts.hide import RestoredStream
from services.inference.private_prompts.restore import Restorer
from services.inference.web.openai_wire import chunks, completion
from tailor.api.anonymization.v1 import anonymization_pb2
from tailor.errors import InvalidArgument, Reason, TailorError, Unavailable
from tailor.values import Labels
from tests.unit.inference.echo import EchoEngine
from tests.unit.inference.fakes import CONSOLE, EVALUATION, KEY, World, make_world, served

LABELS = Labels("wiki", "risk")
PAIRS = {"Iwu": "Okafor", "Ada": "Ngozi", "Ada Iwu": "Ngozi Okafor", "ada@pike.example": "ngozi@firm.example"}
ASKED = "Write to Ms Ngozi Okafor (ngozi@firm.example)."
HIDDEN = "Write to Ms Ada Iwu (ada@pike.example)."
RAW = ("Ngozi", "ngozi", "Okafor")


@pytest.fixture(params=[1, 3, 1000])
def engine(request: pytest.FixtureRequest) -> EchoEngine:
    return EchoEngine(request.param)


@pytest.fixture
def world(engine: EchoEngine) -> World:
    world = make_world(engine=engine)
    world.models.table.switch(served("reports", 1, system_prompt="You are Ward."))
    world.inference.definitions.define("reports", LABELS, private_prompts=True)
    world.anonymizer.pairs = PAIRS
    return world


def ask(
    text: str = ASKED, model: str = "reports", before: Sequence[ChatMessage] = (), **sampling: object
) -> GenerationRequest:
    return GenerationRequest(model, (*before, ChatMessage("user", text)), replace(Sampling(), **sampling))  # type: ignore[arg-type]


def answered(world: World, question: GenerationRequest, caller: Caller = KEY) -> Answer:
    answer = generate(world.inference, caller, question, Cancellation())
    for _ in answer:
        pass
    return answer


def in_memory() -> list[object]:
    """The objects that hold the values of a prompt."""
    return [item for item in gc.get_objects() if type(item) in (RestoredStream, Restorer)]


def test_the_model_sees_no_personal_value_and_the_caller_gets_all_of_them_back(
    world: World, engine: EchoEngine
) -> None:
    before = (ChatMessage("user", "I am Okafor."), ChatMessage("assistant", "Hello, Ngozi."))
    answer = answered(world, ask(before=before))
    assert answer.text == ASKED
    assert (answer.finish_reason, answer.completion_tokens) == (STOPPED, -(-len(HIDDEN) // engine.size))
    (encoded,) = engine.encoded
    assert encoded == (
        ChatMessage("system", "You are Ward."),
        ChatMessage("user", "I am Iwu."),
        ChatMessage("assistant", "Hello, Ada."),
        ChatMessage("user", HIDDEN),
    )
    ((_, labels, avoid),) = world.anonymizer.hidden
    assert (labels, avoid) == (LABELS, ("You are Ward.",))


def test_publishes_and_stores_what_the_model_saw(world: World) -> None:
    answered(world, ask())
    ((draft, transcript),) = world.archive.offered
    assert transcript.messages == (ChatMessage("user", HIDDEN),)
    assert transcript.answer == HIDDEN
    assert not any(raw in repr((draft, transcript.messages, transcript.answer)) for raw in RAW)
    world.inference.definitions.define("reports")
    answered(world, ask(HIDDEN))
    plain = world.published.drafts[-1]
    assert (draft.prompt.prompt_digest, draft.answer_digest) == (plain.prompt.prompt_digest, plain.answer_digest)


def test_never_resolves_a_surrogate_of_another_prompt(world: World, engine: EchoEngine) -> None:
    answered(world, ask())
    world.anonymizer.pairs = {"Rhys": "Hale"}
    engine.prefix = "Ada Iwu, ada@pike.example: "
    assert answered(world, ask("To Hale.")).text == "Ada Iwu, ada@pike.example: To Hale."


def test_a_closed_answer_leaves_no_values_in_memory(world: World) -> None:
    cancellation = Cancellation()
    answer = generate(world.inference, KEY, ask(), cancellation)
    maps = [weakref.ref(item) for item in in_memory()]
    # The stream, and the restorers of its thought and of its answer.
    assert len(maps) == 3
    for _ in answer:
        pass
    gc.collect()
    assert answer.text == ASKED and [reference() for reference in maps] == [None] * 3
    abandoned = generate(world.inference, KEY, ask(), cancellation)
    next(iter(abandoned))
    abandoned.close()
    gc.collect()
    assert in_memory() == []


def test_leaves_prompts_for_the_base_evaluation_and_other_specialists_unchanged(
    world: World, engine: EchoEngine
) -> None:
    world.models.table.switch(served("memos", 1))
    world.inference.definitions.define("memos")
    for question, caller in ((ask(model="base"), KEY), (ask(model="memos"), KEY), (ask(), EVALUATION)):
        assert answered(world, question, caller).text == ASKED
        assert engine.encoded[-1][-1].content == ASKED
    assert world.anonymizer.hidden == []
    assert answered(world, ask(), CONSOLE).text == ASKED and len(world.anonymizer.hidden) == 1


def test_does_not_ask_the_model_without_anonymization(world: World, engine: EchoEngine) -> None:
    world.anonymizer.failures = [Unavailable(Reason.BARRIER_UNAVAILABLE, "Retry.")]
    with pytest.raises(Unavailable) as refused:
        answered(world, ask())
    assert refused.value.reason == "BARRIER_UNAVAILABLE"
    assert not engine.encoded and not engine.given and world.published.drafts == []


def test_refuses_log_probabilities_before_it_asks_anonymization(world: World) -> None:
    with pytest.raises(InvalidArgument) as refused:
        answered(world, ask(top_log_probabilities=0))
    assert refused.value.reason == "NO_LOG_PROBABILITIES" and world.anonymizer.hidden == []


def test_keeps_the_specialists_own_system_prompt_if_a_caller_sends_it(world: World, engine: EchoEngine) -> None:
    answered(world, ask(before=(ChatMessage("system", "You are Ward."),)))
    assert engine.encoded[0][0] == ChatMessage("system", "You are Ward.") and len(engine.encoded[0]) == 2
    assert world.anonymizer.hidden[0][0] == (ASKED,)
    answered(world, ask(before=(ChatMessage("system", "You are Okafor."),)))
    assert engine.encoded[1][0] == ChatMessage("system", "You are Iwu.")


@pytest.mark.parametrize(
    ("stop", "text", "stored"),
    [
        ("Okafor", "Write to Ms Ngozi ", "Write to Ms Ada "),
        ("goz", "Write to Ms N", "Write to Ms Ada"),
        (" (", "Write to Ms Ngozi Okafor", "Write to Ms Ada Iwu"),
    ],
)
def test_matches_stop_texts_against_what_the_caller_gets(
    world: World, engine: EchoEngine, stop: str, text: str, stored: str
) -> None:
    engine.finish = LENGTH
    world.anonymizer.pairs = {name: value for name, value in PAIRS.items() if name != "Ada Iwu"}
    answer = answered(world, ask(stop=(stop,)))
    assert (answer.text, answer.finish_reason) == (text, STOPPED)
    assert engine.given[0].stop == () and engine.echoes[0].is_cancelled
    assert world.anonymizer.hidden[0][2] == ("You are Ward.", stop)
    assert world.archive.offered[0][1].answer.startswith(stored)
    assert answered(world, ask(stop=("never",))).finish_reason == LENGTH


def test_reports_an_answer_that_is_cut_or_cancelled(world: World, engine: EchoEngine) -> None:
    engine.finish = LENGTH
    assert answered(world, ask("To Okafor")).finish_reason == LENGTH
    cancellation = Cancellation()
    answer = generate(world.inference, KEY, ask(), cancellation)
    cancellation.cancel()
    assert "".join(piece.text for piece in answer) == "" and answer.finish_reason == CANCELLED


def test_json_answers_stay_json_and_the_model_gets_surrogates_as_choices(world: World, engine: EchoEngine) -> None:
    world.anonymizer.pairs = {**PAIRS, "HL-77": 'say "so"\nhere'}
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


def test_the_openai_api_gives_values_back_whole_and_streamed(world: World) -> None:
    assert completion("reports", answered(world, ask()))["choices"][0]["message"]["content"] == ASKED
    answer = generate(world.inference, KEY, ask(), Cancellation())
    codes: list[str] = []
    written = chunks("reports", answer, lambda: None, codes.append, usage=False)
    lines = [line.removeprefix("data: ") for line in written]
    assert codes == ["OK"]
    deltas = [json.loads(line)["choices"][0]["delta"] for line in lines if not line.startswith("[DONE]")]
    assert "".join(delta.get("content", "") for delta in deltas) == ASKED
    assert not any(name in "".join(lines) for name in ("Iwu", "Ada", "pike"))


class OneTextOnly:
    """A channel to an anonymization of before `texts`."""

    def unary_unary(self, *_: object, **__: object) -> Any:
        return lambda request, timeout: anonymization_pb2.AnonymizeResponse(text=request.text)

    stream_unary = unary_unary


def test_an_anonymization_that_takes_one_text_only_is_to_be_updated() -> None:
    with pytest.raises(Unavailable, match="takes only one text"):
        AnonymizationClient(OneTextOnly()).anonymize(["Write to Okafor.", "Yes."], LABELS)  # type: ignore[arg-type]


def test_any_failure_of_anonymization_is_unavailable() -> None:
    anonymizer = AnonymizationClient(grpc.insecure_channel("127.0.0.1:1"))
    with pytest.raises(TailorError) as refused:
        anonymizer.hide(["Okafor"], LABELS, [])
    assert (refused.value.reason, refused.value.retryable) == ("BARRIER_UNAVAILABLE", True)
    assert "Okafor" not in refused.value.message
