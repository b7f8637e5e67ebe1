"""The OpenAI-style HTTP API, called by the official client."""

import asyncio
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Literal

import httpx
import openai
import pytest
from fastapi import FastAPI
from prometheus_client import REGISTRY
from pydantic import BaseModel

from services.inference import handlers
from services.inference.domain import (
    ChatMessage,
    Draft,
    DraftFeedback,
    DraftRecord,
    GenerationRequest,
    PromptRecord,
    Sampling,
)
from services.inference.generation import Cancellation, ReadinessGate
from services.inference.web.http import Address, UvicornServer, create_app
from services.inference.web.middleware import MAX_BODY_BYTES
from services.synthetic.adapters.teacher import OpenAiModel
from services.synthetic.synthesis.answers import parse_rows
from services.synthetic.synthesis.prompts import rows_schema
from services.synthetic.synthesis_domain import worst_case
from tailor.errors import NotFound, Reason, Unavailable
from tailor.rpc.auth import CACHE_SECONDS, MAX_QUESTIONS, Authenticator, Caller, VerifyKey
from tailor.rpc.identity import Trust
from tests.unit.inference.fakes import KEY, World, apply_serving, forwarder, make_world, served
from tests.unit.ingestion.tls import make_authority
from tests.waiting import wait_for_port, wait_until

# Set when the key `tlr_brief` is revoked, and the time until the server asks about it again has passed.
BRIEF = threading.Event()
SERVICE = "tailor.api.inference.v1.InferenceService"


def verify(digest: str) -> Caller:
    known = {
        "tlr_caller": Caller("key", "team", "ROLE_CALLER", frozenset({"memos"}), "key_1"),
        "tlr_protector": Caller("key", "dpo", "ROLE_DATA_PROTECTION", frozenset(), "key_2"),
        "tlr_reader": Caller(
            "key", "list", "ROLE_CALLER", frozenset({"memos"}), "key_3", methods=frozenset({f"{SERVICE}/Generate"})
        ),
        "tlr_hurried": Caller("key", "batch", "ROLE_CALLER", key_id="key_4", calls_per_minute=2),
    }
    import hashlib

    if hashlib.sha256(b"tlr_brief").hexdigest() == digest and not BRIEF.is_set():
        return Caller("key", "brief", "ROLE_CALLER", key_id="key_5")
    for secret, caller in known.items():
        if hashlib.sha256(secret.encode()).hexdigest() == digest:
            return caller
    raise NotFound(Reason.UNKNOWN_KEY, "No such key.")


@contextmanager
def serving(
    gate: ReadinessGate,
    certificate: Path | None = None,
    key: Path | None = None,
    client_ca: Path | None = None,
    verify_key: VerifyKey = verify,
) -> Iterator[int]:
    """The HTTP API on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    stop = threading.Event()
    authenticator = Authenticator(
        "inference", Trust({}), verify_key, now=lambda: time.monotonic() + CACHE_SECONDS * BRIEF.is_set()
    )
    app = create_app(gate, authenticator, forwarder(), 16)
    thread = threading.Thread(
        target=UvicornServer(app, Address("127.0.0.1", port, certificate, key, client_ca)).run, args=(stop,)
    )
    thread.start()
    wait_for_port(port)
    try:
        yield port
    finally:
        stop.set()
        thread.join(60)


@pytest.fixture
def gate() -> Iterator[tuple[World, ReadinessGate, str]]:
    world, closed = make_world(max_concurrent=1, max_queued=0), ReadinessGate()
    with serving(closed) as port:
        yield world, closed, f"http://127.0.0.1:{port}/v1"


def client(address: str, key: str = "tlr_caller") -> openai.OpenAI:
    return openai.OpenAI(base_url=address, api_key=key, max_retries=0, timeout=60)


MESSAGES: Any = [{"role": "user", "content": "Write it."}]


def test_lists_models_and_answers_once(gate: tuple[World, ReadinessGate, str]) -> None:
    world, closed, address = gate
    closed.open(world.inference)
    for name in ("memos", "reports"):
        apply_serving(world, served(name, 1, name))
    asked = client(address)
    assert [model.id for model in asked.models.list()] == ["base", "memos"]
    reply = asked.chat.completions.create(model="memos", messages=MESSAGES, max_tokens=3, temperature=0)
    assert reply.choices[0].message.content == "word word word "
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage is not None and reply.usage.total_tokens == 5
    assert reply.id == world.published.drafts[0].draft_id


def test_takes_feedback_on_an_answer_by_its_id(gate: tuple[World, ReadinessGate, str]) -> None:
    world, closed, address = gate
    closed.open(world.inference)
    world.archive.records["drf_1"] = DraftRecord(
        Draft("drf_1", served("memos", 1, "memos"), "key_1", PromptRecord("p"), "q", 4, 3, "stop", 0.1, 0.5), "tiny"
    )
    headers = {"authorization": "Bearer tlr_caller"}

    def give(body: dict[str, Any], draft_id: str = "drf_1", **other: str) -> httpx.Response:
        return httpx.post(f"{address}/drafts/{draft_id}/feedback", json=body, headers={**headers, **other})

    taken = give({"verdict": "edited", "edited_text": "Better.", "stars": 4})
    assert (taken.status_code, taken.json()["id"], taken.json()["edited_text_stored"]) == (200, "fbk_1", True)
    assert world.archive.feedback == [(DraftFeedback("drf_1", "edited", "Better.", 4), "key_1")]
    assert give({"verdict": "accepted"}, "drf_2").status_code == 404
    assert give({"verdict": "accepted"}, authorization="Bearer tlr_protector").status_code == 403
    for body, field in (
        ({"verdict": "meh"}, "verdict"),
        ({"verdict": "accepted", "stars": 6}, "stars"),
        ({}, "verdict"),
    ):
        refused = give(body).json()["error"]
        assert (refused["code"], refused["param"]) == ("INVALID_REQUEST", field)
    assert give({"verdict": "accepted", "star": 5}).json()["error"]["param"] == "star"
    assert len(world.archive.feedback) == 1


def test_the_api_serves_as_a_teacher(gate: tuple[World, ReadinessGate, str]) -> None:
    world, closed, address = gate
    world.engine.context_length = 4096
    world.engine.say = '{"rows": [{"request": "What changes?", "answer": "The envelope."}]}'
    closed.open(world.inference)
    teacher = OpenAiModel(address, "tlr_caller", "base")
    chat = (("system", "Write a row."), ("user", "The control envelope changes."))
    answer = teacher.complete(chat, max_tokens=64, temperature=0.0, schema=rows_schema())
    assert parse_rows(answer.text) == (("What changes?", "The envelope."),)
    assert answer.tokens is not None and answer.tokens.prompt <= worst_case(chat, 64).prompt
    assert world.published.drafts[0].draft_id


def test_serves_as_a_teacher_with_tls_to_who_trusts_its_authority(tmp_path: Path) -> None:
    world, closed = make_world(), ReadinessGate()
    world.engine.context_length = 4096
    closed.open(world.inference)
    authority, certificate, key = make_authority(tmp_path, "localhost")
    chat = (("user", "What changes?"),)
    with serving(closed, certificate, key) as port:
        address = f"https://localhost:{port}/v1"
        trusting = OpenAiModel(address, "tlr_caller", "base", ca_file=authority)
        assert trusting.complete(chat, max_tokens=8, temperature=0.0, schema=rows_schema()).text
        with pytest.raises(Unavailable, match="cannot be reached"):
            OpenAiModel(address, "tlr_caller", "base").complete(
                chat, max_tokens=8, temperature=0.0, schema=rows_schema()
            )


def test_streams_and_a_client_that_leaves_cancels_the_generation(gate: tuple[World, ReadinessGate, str]) -> None:
    world, closed, address = gate
    closed.open(world.inference)
    asked = client(address)
    whole: Any = asked.chat.completions.create(
        model="base", messages=MESSAGES, max_tokens=3, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(whole)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "word word word "
    assert chunks[-1].usage.completion_tokens == 3
    broken: Any = asked.chat.completions.create(model="base", messages=MESSAGES, max_tokens=60, stream=True)
    next(iter(broken))
    world.engine.gate.clear()
    broken.close()
    wait_until(lambda: len(world.published.drafts) >= 2)
    assert world.engine.streams[1].cancelled.is_set()


def ask(address: str, key: str = "tlr_caller", **fields: Any) -> Any:
    question: dict[str, Any] = {"model": "base", "messages": MESSAGES, "max_tokens": 3} | fields
    return client(address, key).chat.completions.create(**question)


def test_a_client_that_stops_waiting_ends_the_generation(gate: tuple[World, ReadinessGate, str]) -> None:
    world, closed, address = gate
    closed.open(world.inference)
    world.engine.gate.clear()
    before = counted("CANCELLED")

    async def ask_and_leave() -> None:
        async with openai.AsyncOpenAI(base_url=address, api_key="tlr_caller", max_retries=0) as asked:
            answer = asyncio.create_task(asked.chat.completions.create(model="base", messages=MESSAGES))
            await asyncio.to_thread(wait_until, lambda: world.engine.streams)
            answer.cancel()
            await asyncio.gather(answer, return_exceptions=True)

    asyncio.run(ask_and_leave())
    wait_until(lambda: counted("CANCELLED") == before + 1)
    assert world.published.drafts[0].finish_reason == "cancelled"
    assert world.engine.streams[0].cancelled.is_set()


def test_the_asynchronous_client_asks_and_streams(gate: tuple[World, ReadinessGate, str]) -> None:
    world, closed, address = gate
    closed.open(world.inference)

    async def both() -> tuple[str, str]:
        async with openai.AsyncOpenAI(base_url=address, api_key="tlr_caller", max_retries=0) as asked:
            question: Any = {"model": "base", "messages": MESSAGES, "max_tokens": 3, "user": "someone", "seed": 0}
            whole = await asked.chat.completions.create(**question)
            stream = await asked.chat.completions.create(**question, stream=True)
            return whole.choices[0].message.content or "", "".join(
                [chunk.choices[0].delta.content or "" async for chunk in stream]
            )

    assert asyncio.run(both()) == ("word word word ", "word word word ")
    assert all(stream.sampling.seed for stream in world.engine.streams)


class Finding(BaseModel):
    grade: Literal["low", "high"]


def test_a_schema_reaches_the_engine_and_comes_back_parsed(gate: tuple[World, ReadinessGate, str]) -> None:
    world, closed, address = gate
    closed.open(world.inference)
    world.engine.say = '{"grade":"high"}'
    parsed = client(address).chat.completions.parse(model="base", messages=MESSAGES, response_format=Finding)
    assert parsed.choices[0].message.parsed == Finding(grade="high")
    schema = json.loads(world.engine.streams[0].sampling.schema)
    assert schema["properties"]["grade"]["enum"] == ["low", "high"]
    ask(address, response_format={"type": "json_object"})
    assert json.loads(world.engine.streams[1].sampling.schema) == {"type": "object"}
    ask(address, response_format={"type": "text"})
    assert not world.engine.streams[2].sampling.schema


def test_gives_log_probabilities_whole_and_streamed(gate: tuple[World, ReadinessGate, str]) -> None:
    world, closed, address = gate
    closed.open(world.inference)
    whole = ask(address, logprobs=True, top_logprobs=2).choices[0].logprobs.content
    assert [(token.token, token.logprob, bytes(token.bytes)) for token in whole] == [("word ", -0.5, b"word ")] * 3
    assert [top.token for top in whole[0].top_logprobs] == ["word ", "verb "]
    chunks = list(ask(address, logprobs=True, stream=True))
    streamed = [
        token.logprob for chunk in chunks if chunk.choices[0].logprobs for token in chunk.choices[0].logprobs.content
    ]
    assert streamed == [-0.5] * 3
    assert ask(address).choices[0].logprobs is None


def test_an_error_while_streaming_reaches_the_client(gate: tuple[World, ReadinessGate, str]) -> None:
    world, closed, address = gate
    closed.open(world.inference)
    world.engine.fails = Unavailable(Reason.ENGINE_FAILED, "The engine could not answer. Retry.")
    with pytest.raises(openai.APIError) as caught:
        list(ask(address, stream=True))
    assert caught.value.code == "ENGINE_FAILED"
    with pytest.raises(openai.InternalServerError):
        ask(address)


def test_a_repeated_idempotency_key_gets_the_first_answer_and_leaves_one_draft(
    gate: tuple[World, ReadinessGate, str],
) -> None:
    world, closed, address = gate
    closed.open(world.inference)
    quoted, bare = {"Idempotency-Key": '"memo-7"'}, {"idempotency-key": "memo-7"}
    first, again = ask(address, extra_headers=quoted), ask(address, extra_headers=bare)
    assert again == first
    streamed = list(ask(address, extra_headers=bare, stream=True))
    assert [chunk.choices[0].delta.content for chunk in streamed] == ["", "word word word ", None]
    assert {chunk.id for chunk in streamed} == {first.id}
    assert len(world.published.drafts) == 1
    with pytest.raises(openai.UnprocessableEntityError) as reused:
        ask(address, extra_headers=bare, max_tokens=4)
    assert (reused.value.code, reused.value.param) == ("REQUEST_ID_REUSED", "Idempotency-Key")
    with pytest.raises(openai.BadRequestError) as long:
        ask(address, extra_headers={"Idempotency-Key": "x" * 129})
    assert long.value.param == "Idempotency-Key" and "`Idempotency-Key`: must have" in long.value.message
    assert ask(address, "tlr_reader", extra_headers=bare).id != first.id


def counted(code: str, method: str = "Generate") -> float:
    """How many calls of a method the metrics have."""
    name = f"tailor.api.inference.v1.InferenceService.{method}"
    timed = REGISTRY.get_sample_value("tailor_rpc_seconds_count", {"method": name}) or 0.0
    number = REGISTRY.get_sample_value("tailor_rpc_total", {"method": name, "code": code}) or 0.0
    assert timed >= number
    return number


def is_counted(code: str, method: str, number: float) -> bool:
    return counted(code, method) == number


def test_calls_are_counted_by_the_methods_and_codes_of_grpc(gate: tuple[World, ReadinessGate, str]) -> None:
    world, closed, address = gate
    closed.open(world.inference)
    apply_serving(world, served("memos", 1, "a"))
    calls: list[tuple[str, str, Callable[[], Any]]] = [
        ("Generate", "OK", lambda: ask(address, model="memos")),
        ("StreamGenerate", "OK", lambda: list(ask(address, stream=True))),
        ("ListSpecialists", "OK", client(address).models.list),
        ("ListSpecialists", "NOT_FOUND", lambda: client(address).models.retrieve("reports")),
        ("Generate", "UNAUTHENTICATED", lambda: ask(address, "tlr_wrong")),
        ("Generate", "PERMISSION_DENIED", lambda: ask(address, "tlr_protector")),
        ("Generate", "INVALID_ARGUMENT", lambda: ask(address, messages="none")),
        ("StreamGenerate", "INVALID_ARGUMENT", lambda: ask(address, temperature=3, stream=True)),
    ]
    for method, code, call in calls:
        before = counted(code, method)
        with nullcontext() if code == "OK" else pytest.raises(openai.APIStatusError):
            call()
        # The client has its answer a moment before the server counts it.
        wait_until(partial(is_counted, code, method, before + 1))


def test_an_answer_that_breaks_off_and_a_client_that_leaves_are_counted_as_that(
    gate: tuple[World, ReadinessGate, str],
) -> None:
    world, closed, address = gate
    closed.open(world.inference)
    world.engine.fails = Unavailable(Reason.ENGINE_FAILED, "The engine could not answer. Retry.")
    before = counted("UNAVAILABLE", "StreamGenerate")
    with pytest.raises(openai.APIError):
        list(ask(address, stream=True))
    wait_until(lambda: counted("UNAVAILABLE", "StreamGenerate") == before + 1)
    world.engine.fails, before = None, counted("CANCELLED", "StreamGenerate")
    world.engine.ungated = 1
    world.engine.gate.clear()
    broken = ask(address, stream=True)
    next(iter(broken))
    broken.close()
    wait_until(lambda: counted("CANCELLED", "StreamGenerate") == before + 1)


def test_tokens_and_the_time_to_the_first_one_are_measured_by_specialist_over_both_doors(
    gate: tuple[World, ReadinessGate, str],
) -> None:
    world, closed, address = gate
    closed.open(world.inference)
    apply_serving(world, served("memos", 1, "a"))

    def measured() -> list[float]:
        of = {"specialist": "memos", "caller": "key"}
        tokens = [
            REGISTRY.get_sample_value("tailor_answer_tokens_total", of | {"kind": kind}) or 0.0
            for kind in ("prompt", "completion")
        ]
        return [*tokens, REGISTRY.get_sample_value("tailor_first_token_seconds_count", of) or 0.0]

    before = measured()
    ask(address, model="memos")
    over_grpc = handlers.generate(
        world.inference,
        KEY,
        GenerationRequest("memos", (ChatMessage("user", "Write it."),), Sampling(max_tokens=3)),
        Cancellation(),
    )
    assert [piece.tokens for piece in over_grpc] == [1, 2, 3]
    assert [now - then for now, then in zip(measured(), before, strict=True)] == [4, 6, 2]


def test_errors_have_the_status_that_clients_know(gate: tuple[World, ReadinessGate, str]) -> None:
    world, closed, address = gate
    with pytest.raises(openai.InternalServerError) as loading:
        ask(address)
    assert loading.value.status_code == 503
    closed.open(world.inference)
    with pytest.raises(openai.AuthenticationError):
        ask(address, "tlr_wrong")
    with pytest.raises(openai.PermissionDeniedError):
        ask(address, "tlr_protector")
    with pytest.raises(openai.NotFoundError):
        ask(address, model="reports")
    world.inference.definitions.define("memos")
    with pytest.raises(openai.BadRequestError) as idle:
        ask(address, model="memos")
    assert (idle.value.code, idle.value.param) == ("NOT_SERVING", "model")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages"),
        ({"n": 2}, "n"),
        ({"temperature": 3}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"logit_bias": {"50256": -100}}, "logit_bias"),
        ({"prediction": {"type": "content", "content": "a"}}, "prediction"),
        ({"extra_body": {"guided_json": {}}}, "guided_json"),
        ({"extra_body": {"response_format": {"type": "grammar"}}}, "response_format.type"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"extra_body": {"stop": 5}}, "stop"),
        ({"extra_body": {"top_k": 5}}, "top_k"),
        ({"extra_body": {"repetition_penalty": 5}}, "repetition_penalty"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": None}]}]}, "messages"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "json_object"}, "stop": "}"}, "stop"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"oneOf": []}}}},
            "response_format.json_schema",
        ),
    ],
)
def test_a_bad_request_names_the_field(
    gate: tuple[World, ReadinessGate, str], fields: dict[str, Any], param: str
) -> None:
    world, closed, address = gate
    closed.open(world.inference)
    with pytest.raises(openai.BadRequestError) as caught:
        ask(address, **fields)
    assert (caught.value.type, caught.value.param) == ("invalid_request_error", param)
    assert not world.engine.streams


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": [0] * 500_000}, "messages"),
        ({"messages": [{}] * 400_000}, "messages"),
        ({"messages": [{"role": "user", "content": [0] * 500_000}]}, "messages.0.content"),
        ({"stop": [0] * 500_000}, "stop"),
    ],
)
def test_a_body_full_of_mistakes_gets_one_sentence(
    gate: tuple[World, ReadinessGate, str], fields: dict[str, Any], param: str
) -> None:
    world, closed, address = gate
    closed.open(world.inference)
    body = {"model": "base", "messages": MESSAGES} | fields
    # A sentence for each mistake would be an answer of up to 80 MB, and 10 seconds in which nobody else is answered.
    answer = httpx.post(
        f"{address}/chat/completions",
        content=json.dumps(body, separators=(",", ":")),
        headers={"authorization": "Bearer tlr_caller", "content-type": "application/json"},
        timeout=60,
    )
    assert answer.status_code == 400 and len(answer.content) < 1_000
    assert answer.json()["error"]["param"] == param
    assert "at most" in answer.json()["error"]["message"]


def test_each_unsupported_field_is_named_in_a_sentence_of_its_own(gate: tuple[World, ReadinessGate, str]) -> None:
    world, closed, address = gate
    closed.open(world.inference)
    with pytest.raises(openai.BadRequestError) as caught:
        ask(address, n=2, tools=[{"type": "function"}])
    message = caught.value.body["message"]  # type: ignore[index]
    assert (
        message == "`n` is not supported. Leave it out, or send 1. `tools` is not supported. Leave it out, or send []."
    )
    with pytest.raises(openai.BadRequestError) as caught:
        ask(address, stop=["a"] * 5, temperature=3)
    message = caught.value.body["message"]  # type: ignore[index]
    assert message == "`temperature`: must be from 0 to 2; `stop`: must have at most 4 texts, not 5."


@pytest.mark.parametrize(("key", "reason"), [("tlr_wrong", "UNKNOWN_KEY"), ("sk-wrong", "INVALID_KEY")])
def test_a_wrong_key_is_called_a_wrong_key(gate: tuple[World, ReadinessGate, str], key: str, reason: str) -> None:
    with pytest.raises(openai.AuthenticationError) as caught:
        ask(gate[2], key)
    assert caught.value.code == reason
    assert "API key" in str(caught.value)


def test_made_up_keys_keep_no_known_key_waiting_while_the_registry_does_not_answer() -> None:
    is_over = threading.Event()

    def verify_slowly(digest: str) -> Caller:
        try:
            return verify(digest)
        except NotFound:
            is_over.wait(120)
            raise

    with serving(ReadinessGate(), verify_key=verify_slowly) as port:

        def ask_for_models(key: str) -> int:
            headers = {"authorization": f"Bearer tlr_{key}"}
            return httpx.get(f"http://127.0.0.1:{port}/v1/models", headers=headers, timeout=60).status_code

        # The model is not ready: a known key gets 503.
        assert ask_for_models("caller") == 503
        guesses = [threading.Thread(target=ask_for_models, args=(f"guess_{number}",)) for number in range(40)]
        try:
            for guess in guesses:
                guess.start()
            wait_until(lambda: sum(guess.is_alive() for guess in guesses) == MAX_QUESTIONS)
            assert ask_for_models("caller") == 503
            assert sum(guess.is_alive() for guess in guesses) == MAX_QUESTIONS
        finally:
            is_over.set()
            for guess in guesses:
                guess.join()


def test_a_full_queue_says_when_to_retry(gate: tuple[World, ReadinessGate, str]) -> None:
    world, closed, address = gate
    closed.open(world.inference)
    world.engine.gate.clear()
    first = ask(address, stream=True)
    with pytest.raises(openai.RateLimitError) as caught:
        ask(address)
    assert int(caught.value.response.headers["retry-after"]) >= 1
    world.engine.gate.set()
    assert len(list(first)) == 5


def test_refuses_a_body_over_the_limit_with_and_without_a_declared_length(
    gate: tuple[World, ReadinessGate, str],
) -> None:
    _, _, address = gate
    headers = {"authorization": "Bearer tlr_caller", "content-type": "application/json"}
    large = b"{" + b" " * MAX_BODY_BYTES
    declared = httpx.post(f"{address}/chat/completions", content=large, headers=headers)
    streamed = httpx.post(f"{address}/chat/completions", content=iter([large]), headers=headers)
    assert [reply.status_code for reply in (declared, streamed)] == [413, 413]
    assert declared.json() == streamed.json()
    assert streamed.json()["error"]["type"] == "invalid_request_error"
    assert httpx.get(f"{address}/embeddings").json()["error"]["code"] == "NOT_FOUND"


def test_retrieves_a_model_for_callers_that_may_use_it(gate: tuple[World, ReadinessGate, str]) -> None:
    world, closed, address = gate
    closed.open(world.inference)
    for name in ("memos", "reports"):
        apply_serving(world, served(name, 1, name))
    assert client(address).models.retrieve("memos").id == "memos"
    with pytest.raises(openai.NotFoundError):
        client(address).models.retrieve("reports")


def test_serves_tls_if_it_has_a_certificate(tmp_path: Path) -> None:
    world, closed = make_world(), ReadinessGate()
    closed.open(world.inference)
    authority, certificate, key = make_authority(tmp_path, "localhost")
    with serving(closed, certificate, key) as port:
        address = f"https://localhost:{port}/v1"
        with httpx.Client(verify=ssl.create_default_context(cafile=str(authority))) as trusting:
            asked = openai.OpenAI(base_url=address, api_key="tlr_caller", max_retries=0, http_client=trusting)  # type: ignore[arg-type]
            assert [model.id for model in asked.models.list()] == ["base"]
        with pytest.raises(openai.APIConnectionError):
            client(address).models.list()


def test_a_keys_methods_limit_the_http_api_too(gate: tuple[World, ReadinessGate, str]) -> None:
    world, closed, address = gate
    closed.open(world.inference)
    reader = client(address, "tlr_reader")
    ask = {"model": "base", "messages": MESSAGES, "max_tokens": 2}
    assert reader.chat.completions.create(**ask).choices[0].message.content == "word word "
    with pytest.raises(openai.PermissionDeniedError):
        reader.chat.completions.create(**ask, stream=True)


def test_a_key_limited_to_answers_lists_the_models_that_it_may_ask(gate: tuple[World, ReadinessGate, str]) -> None:
    world, closed, address = gate
    closed.open(world.inference)
    for name in ("memos", "reports"):
        apply_serving(world, served(name, 1, name))
    reader = client(address, "tlr_reader")
    assert [model.id for model in reader.models.list()] == ["base", "memos"]
    assert reader.models.retrieve("memos").id == "memos"
    with pytest.raises(openai.NotFoundError):
        reader.models.retrieve("reports")


def test_a_key_that_calls_too_often_is_told_when_to_retry(
    gate: tuple[World, ReadinessGate, str],
) -> None:
    world, closed, address = gate
    closed.open(world.inference)
    hurried = client(address, "tlr_hurried")
    for _ in range(2):
        hurried.models.list()
    with pytest.raises(openai.RateLimitError) as refused:
        hurried.models.list()
    assert 1 <= int(refused.value.response.headers["retry-after"]) <= 30


def test_revoking_a_key_ends_its_streams(gate: tuple[World, ReadinessGate, str]) -> None:
    world, closed, address = gate
    closed.open(world.inference)
    living = client(address, "tlr_brief")
    BRIEF.clear()
    world.engine.gate.clear()
    world.engine.ungated = 1
    stream: Any = living.chat.completions.create(model="base", messages=MESSAGES, max_tokens=60, stream=True)
    next(iter(stream))
    BRIEF.set()
    world.engine.gate.set()
    with pytest.raises((openai.APIError, httpx.RemoteProtocolError)):
        list(stream)
    assert world.engine.streams[0].cancelled.is_set()


def test_refuses_a_caller_without_the_required_certificate(tmp_path: Path) -> None:
    closed = ReadinessGate()
    authority, certificate, key = make_authority(tmp_path, "localhost")
    with serving(closed, certificate, key, client_ca=authority) as port:
        stranger = ssl.create_default_context(cafile=str(authority))
        known = ssl.create_default_context(cafile=str(authority))
        known.load_cert_chain(certificate, key)
        with httpx.Client(verify=known) as asked:
            assert asked.get(f"https://localhost:{port}/v1/models").status_code == 401
        with httpx.Client(verify=stranger) as asked, pytest.raises(httpx.HTTPError):
            asked.get(f"https://localhost:{port}/v1/models")


def test_running_request_ends_within_the_grace_and_no_new_one_is_accepted() -> None:
    begun, go_on, answer = threading.Event(), threading.Event(), list[int]()
    app = FastAPI()

    @app.get("/slow")
    async def slow() -> str:
        begun.set()
        await asyncio.to_thread(go_on.wait, 60)
        return "done"

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = UvicornServer(app, Address("127.0.0.1", port))
    thread = threading.Thread(target=server.run, args=(threading.Event(),))
    thread.start()
    wait_for_port(port)
    url = f"http://127.0.0.1:{port}/slow"
    caller = threading.Thread(target=lambda: answer.append(httpx.get(url, timeout=120).status_code))
    caller.start()
    assert begun.wait(60)

    def is_refused() -> bool:
        with socket.socket() as other:
            return other.connect_ex(("127.0.0.1", port)) != 0

    stopping = threading.Thread(target=server.stop, args=(60.0,))
    stopping.start()
    wait_until(is_refused)
    assert not answer
    go_on.set()
    stopping.join(60)
    caller.join(60)
    thread.join(60)
    assert answer == [200]
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, timeout=60)
