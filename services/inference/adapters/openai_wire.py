"""What OpenAI's clients send and understand, in and out of our own terms."""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from services.inference.answering import Answer
from services.inference.domain import DEFAULT_MAX_TOKENS, Ask, LikelyToken, Sampling, TokenLogProbability, Turn
from tailor.errors import InvalidArgument, Reason, TailorError

UNFINISHED = "�"
ANY_OBJECT = '{"type": "object"}'
MAX_SEED = 2**63 - 1
NO_OBJECT = "The body must be a JSON object in UTF-8, sent with `content-type: application/json`."
# By status; other errors of the caller are `invalid_request_error`, of the server `server_error`.
ERROR_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class ChatMessage(BaseModel):
    """One message; parts of text are joined."""

    role: Literal["system", "user", "assistant", "developer"]
    content: str | list[dict[str, Any]]

    def turn(self) -> Turn:
        """The message in our own terms; InvalidArgument for parts that are not text."""
        content = self.content
        if isinstance(content, list):
            if any(part.get("type") != "text" or not isinstance(part.get("text"), str) for part in content):
                raise InvalidArgument(
                    Reason.TEXT_ONLY, "Only text can be asked.", field_violations={"messages": "Not text."}
                )
            content = "".join(part["text"] for part in content)
        return Turn("system" if self.role == "developer" else self.role, content)


class StreamOptions(BaseModel):
    """Options of a streamed answer."""

    include_usage: bool = False


class NamedSchema(BaseModel):
    """A JSON schema under the client's own name for it."""

    definition: dict[str, Any] = Field(alias="schema")


class ResponseFormat(BaseModel):
    """What the answer must be."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None

    def schema_text(self) -> str:
        """The JSON schema to keep to; empty for plain text."""
        if self.type == "text":
            return ""
        if self.type == "json_object":
            return ANY_OBJECT
        if self.json_schema is None:
            violations = {"json_schema": "Missing."}
            raise InvalidArgument(
                Reason.NO_SCHEMA, "response_format lacks its json_schema.", field_violations=violations
            )
        return json.dumps(self.json_schema.definition)


class ChatRequest(BaseModel):
    """What the clients send. What would change the answer and cannot be done here is refused; other fields are let pass."""

    model_config = ConfigDict(extra="ignore")

    model: str
    messages: list[ChatMessage]
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = Field(None, ge=-MAX_SEED, le=MAX_SEED)
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stop: str | list[str] | None = None
    n: int | None = Field(None, ge=1, le=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: list[Any] | None = Field(None, max_length=0)
    functions: list[Any] | None = Field(None, max_length=0)
    logit_bias: dict[str, Any] | None = Field(None, max_length=0)
    tool_choice: Literal["none", "auto"] | None = None
    function_call: Literal["none", "auto"] | None = None
    frequency_penalty: float | None = Field(None, ge=0, le=0)
    presence_penalty: float | None = Field(None, ge=0, le=0)
    modalities: list[Literal["text"]] | None = None
    audio: None = None
    web_search_options: None = None
    # Not OpenAI's own, but sent to other servers of its API.
    repetition_penalty: float | None = None
    top_k: Literal[-1, 0] | None = None
    min_p: float | None = Field(None, ge=0, le=0)

    def ask(self) -> Ask:
        """The question in our own terms; InvalidArgument where it is none."""
        return Ask(self.model, tuple(message.turn() for message in self.messages), self._sampling())

    def _sampling(self) -> Sampling:
        limits = (self.max_completion_tokens, self.max_tokens, DEFAULT_MAX_TOKENS)
        return Sampling(
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            # 0 is a seed like any other here; ours are positive.
            seed=None if self.seed is None else abs(self.seed) or MAX_SEED,
            max_tokens=next(limit for limit in limits if limit is not None),
            stop=(self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ()),
            repetition_penalty=1.0 if self.repetition_penalty is None else self.repetition_penalty,
            schema=self.response_format.schema_text() if self.response_format else "",
            top_log_probabilities=self._top(),
        )

    def _top(self) -> int | None:
        if self.logprobs:
            return self.top_logprobs or 0
        if self.top_logprobs:
            violations = {"top_logprobs": "Only with logprobs."}
            raise InvalidArgument(Reason.INVALID_REQUEST, "top_logprobs needs logprobs.", field_violations=violations)
        return None


def models(names: Iterable[str]) -> dict[str, Any]:
    """The list of models."""
    return {"object": "list", "data": [model(name) for name in names]}


def model(name: str) -> dict[str, Any]:
    """One model."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "tailor"}


def completion(model: str, answer: Answer) -> dict[str, Any]:
    """A whole answer."""
    message = {"role": "assistant", "content": answer.text}
    choice = {"index": 0, "message": message, "finish_reason": answer.finish_reason}
    choice["logprobs"] = _told(answer.log_probabilities)
    return _head(model, answer, "chat.completion") | {"choices": [choice], "usage": _usage(answer)}


def chunks(model: str, answer: Answer, still_admits: Callable[[], None], *, usage: bool) -> Iterator[str]:
    """An answer as server-sent events; an error that comes while it is written, or from `still_admits`, is the last of them."""
    yield _line(model, answer, {"role": "assistant", "content": ""})
    try:
        for piece in answer:
            still_admits()
            if piece.text or piece.log_probabilities:
                yield _line(model, answer, {"content": piece.text}, told=piece.log_probabilities)
    except TailorError as failed:
        yield _data(error(failed.reason, failed.message, 500))
        return
    yield _line(model, answer, {}, answer.finish_reason)
    if usage:
        yield _data(_head(model, answer, "chat.completion.chunk") | {"choices": [], "usage": _usage(answer)})
    yield "data: [DONE]\n\n"


def error(reason: str, message: str, status: int, param: str | None = None) -> dict[str, Any]:
    """An error's body."""
    kind = ERROR_TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": reason}}


def _line(
    model: str,
    answer: Answer,
    delta: dict[str, str],
    finish: str | None = None,
    told: tuple[TokenLogProbability, ...] = (),
) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": _told(told)}
    return _data(_head(model, answer, "chat.completion.chunk") | {"choices": [choice]})


def _told(written: tuple[TokenLogProbability, ...]) -> dict[str, Any] | None:
    if not written:
        return None
    content = [_likely(one.token) | {"top_logprobs": [_likely(top) for top in one.top]} for one in written]
    return {"content": content, "refusal": None}


def _likely(token: LikelyToken) -> dict[str, Any]:
    # Of a part of a character the bytes are not known.
    octets = None if UNFINISHED in token.token else list(token.token.encode())
    return {"token": token.token, "logprob": token.log_probability, "bytes": octets}


def _head(model: str, answer: Answer, kind: str) -> dict[str, Any]:
    return {"id": answer.draft_id, "object": kind, "created": int(time.time()), "model": model}


def _usage(answer: Answer) -> dict[str, int]:
    total = answer.prompt_tokens + answer.completion_tokens
    return {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "total_tokens": total,
    }


def _data(message: dict[str, Any]) -> str:
    return f"data: {json.dumps(message)}\n\n"
