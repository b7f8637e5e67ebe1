"""Fields that a request leaves out are as the specialist's definition says, the same at every door and for evaluation."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from services.inference import handlers
from services.inference.consumers import SPECIALISTS, SpecialistConsumer
from services.inference.definitions import Definitions
from services.inference.domain import ChatMessage, GenerationRequest, Sampling
from services.inference.generation import Cancellation, ReadinessGate
from services.inference.web.http import create_app
from services.inference.wire import to_request
from tailor import values
from tailor.api.events.v1 import models_pb2
from tailor.api.inference.v1 import inference_pb2
from tailor.events.envelope import Event
from tailor.rpc.auth import Authenticator, Caller
from tailor.rpc.identity import Trust
from tests.unit.inference.fakes import KEY, World, apply_serving, forwarder, make_world, served

PROMPT = "Write it."
HOUSE = values.SamplingDefaults(temperature=0.75, top_p=0.5, repetition_penalty=1.25, max_tokens=7)


@pytest.fixture
def world() -> World:
    made = make_world()
    apply_serving(made, served("reports", 1, "a"))
    made.inference.definitions.define("reports", sampling=HOUSE)
    return made


def ask_grpc(world: World, model: str, **sampling: Any) -> Sampling:
    request = inference_pb2.GenerateRequest(model=model, prompt=PROMPT, sampling=inference_pb2.Sampling(**sampling))
    list(handlers.generate(world.inference, KEY, to_request(request), Cancellation()))
    return world.engine.streams[-1].sampling


def post(world: World, model: str, **fields: Any) -> Any:
    gate = ReadinessGate()
    gate.open(world.inference)
    keys = Authenticator("inference", Trust({}), lambda _: Caller("key", "team", "ROLE_CALLER", key_id="key_1"))
    body = {"model": model, "messages": [{"role": "user", "content": PROMPT}]} | fields
    headers = {"authorization": "Bearer tlr_x"}
    return TestClient(create_app(gate, keys, forwarder(), 4)).post("/v1/chat/completions", json=body, headers=headers)


def ask_http(world: World, model: str, **fields: Any) -> Sampling:
    assert post(world, model, **fields).status_code == 200
    return world.engine.streams[-1].sampling


@pytest.mark.parametrize("ask", [ask_grpc, ask_http])
def test_an_empty_request_takes_the_sampling_of_the_specialist(world: World, ask: Any) -> None:
    assert ask(world, "reports") == Sampling(0.75, 0.5, max_tokens=7, repetition_penalty=1.25)


@pytest.mark.parametrize("ask", [ask_grpc, ask_http])
def test_what_a_request_sets_holds_also_the_neutral_value(world: World, ask: Any) -> None:
    drawn = ask(world, "reports", temperature=0, top_p=1, repetition_penalty=1, max_tokens=3)
    assert drawn == Sampling(temperature=0, top_p=1, repetition_penalty=1, max_tokens=3)


@pytest.mark.parametrize("ask", [ask_grpc, ask_http])
def test_the_base_answers_plainly_and_as_long_as_the_context_allows(world: World, ask: Any) -> None:
    room = world.engine.context_length - len(PROMPT.split())
    assert ask(world, "base") == Sampling(temperature=0, top_p=1, repetition_penalty=1, max_tokens=room)


def test_a_limit_of_0_tokens_is_refused_by_its_name(world: World) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        reply = post(world, "reports", **{name: 0})
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, name)


def test_the_definition_brings_the_sampling_and_a_tombstone_removes_it() -> None:
    definitions = Definitions()
    sampling = models_pb2.SamplingDefaults(temperature=0.5, max_tokens=9)
    message = models_pb2.SpecialistChanged(name="reports", base="tiny", sampling=sampling)
    consumer = SpecialistConsumer(definitions)

    consumer.apply(Event(SPECIALISTS, "reports", message.SerializeToString()))
    assert definitions.sampling("reports") == values.SamplingDefaults(temperature=0.5, max_tokens=9)
    assert definitions.base("reports") == "tiny"

    consumer.apply(Event(SPECIALISTS, "reports", None))
    assert definitions.sampling("reports") == values.SamplingDefaults()
    assert definitions.base("reports") is None


def test_private_prompts_keep_the_sampling_of_the_specialist(world: World) -> None:
    world.inference.definitions.define("reports", private_prompts=True, sampling=HOUSE)
    request = GenerationRequest("reports", (ChatMessage("user", PROMPT),), Sampling(), frozenset({"max_tokens"}))
    list(handlers.generate(world.inference, KEY, request, Cancellation()))
    assert world.engine.streams[-1].sampling.max_tokens == 7
