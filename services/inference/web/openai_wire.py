"""Between OpenAI's chat completions and the domain of inference."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from services.inference.adapters.forwarding import ForwardedAnswer
from services.inference.domain import (
    ChatMessage,
    DraftFeedback,
    GenerationRequest,
    LikelyToken,
    Sampling,
    StoredFeedback,
    TokenLogProbability,
)
from services.inference.generation import Answer
from services.inference.validation import MAX_MESSAGES
from tailor.errors import InvalidArgument, Reason, TailorError

HttpAnswer = Answer | ForwardedAnswer
# The text of a token that is a part of a character.
PARTIAL = "�"
ANY_OBJECT = '{"type": "object"}'
MAX_SEED = 2**63 - 1
# Each entry of a list can be wrong in several ways, and every mistake is a sentence of the answer: longer lists are refused unread.
MAX_PARTS = 1_000
NOT_AN_OBJECT = "The body must be a JSON object in UTF-8, sent with `content-type: application/json`."
# By HTTP status; other errors of the caller are `invalid_request_error`, of the server `server_error`.
ERROR_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}

# Fields that would change the answer but are not supported, each with the values that change nothing: OpenAI's own, then those of other
# servers of its API. Fields that are not listed do not change the answer and are ignored.
UNSUPPORTED: Mapping[str, tuple[object, ...]] = {
    "n": (1,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "logit_bias": ({},),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "best_of": (1,),
    "top_k": (-1, 0),
    "min_p": (0,),
    "min_tokens": (0,),
    "length_penalty": (1,),
    "use_beam_search": (False,),
    "ignore_eos": (False,),
    "stop_token_ids": ([],),
    "bad_words": ([],),
    "allowed_token_ids": ([],),
    "echo": (False,),
    "continue_final_message": (False,),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "structured_outputs": (),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
}
# Fields whose names differ from the domain's.
OPENAI_NAMES = {
    "json_schema": "response_format.json_schema",
    "log_probabilities": "logprobs",
    "top_log_probabilities": "top_logprobs",
    "request_id": "Idempotency-Key",
}
# Statuses that differ from those of the canonical codes: of a reused key, by the IETF's draft on the header Idempotency-Key.
STATUSES: Mapping[str, int] = {Reason.REQUEST_ID_REUSED: 422}


class OpenAiMessage(BaseModel):
    """One message; parts of text are joined."""

    role: Literal["system", "user", "assistant", "developer"]
    content: str | Annotated[list[dict[str, Any]], Field(max_length=MAX_PARTS)]

    def to_message(self) -> ChatMessage:
        """Raises InvalidArgument (TEXT_ONLY) for parts that are not text."""
        content = self.content
        if isinstance(content, list):
            if any(part.get("type") != "text" or not isinstance(part.get("text"), str) for part in content):
                raise _invalid(
                    Reason.TEXT_ONLY, "messages", "Parts of a message must be text; images and audio are not supported."
                )
            content = "".join(part["text"] for part in content)
        return ChatMessage("system" if self.role == "developer" else self.role, content)


class StreamOptions(BaseModel):
    """Options of a streamed answer."""

    include_usage: bool = False


class NamedSchema(BaseModel):
    """A JSON schema under the client's own name for it."""

    definition: dict[str, Any] = Field(alias="schema")


class ResponseFormat(BaseModel):
    """The format of the answer."""

    type: str
    json_schema: NamedSchema | None = None

    def schema_text(self) -> str:
        """The JSON schema that the answer must follow; empty for plain text."""
        if self.type == "text":
            return ""
        if self.type == "json_object":
            return ANY_OBJECT
        if self.type != "json_schema":
            message = (
                "This kind of `response_format` is not supported; its type must be text, json_object or json_schema."
            )
            raise _invalid(Reason.INVALID_REQUEST, "response_format.type", message)
        if self.json_schema is None:
            message = "`response_format` of type json_schema needs `json_schema`."
            raise _invalid(Reason.NO_SCHEMA, "response_format.json_schema", message)
        return json.dumps(self.json_schema.definition)


class ChatRequest(BaseModel):
    """The body of a chat completion. `model_extra` holds all other fields."""

    model_config = ConfigDict(extra="allow")

    model: str
    messages: list[OpenAiMessage] = Field(max_length=MAX_MESSAGES)
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = Field(None, ge=-MAX_SEED, le=MAX_SEED)
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stop: str | Annotated[list[str], Field(max_length=MAX_PARTS)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    # Not OpenAI's own, but sent to other servers of its API.
    repetition_penalty: float | None = None

    def to_request(self, request_id: str = "") -> GenerationRequest:
        """Raises InvalidArgument for unsupported fields and kinds, each by its name."""
        self._refuse_unsupported()
        messages = tuple(message.to_message() for message in self.messages)
        sampling = self._sampling()
        given = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "repetition_penalty": self.repetition_penalty,
            "max_tokens": sampling.max_tokens or None,
            "thinking": None,
        }
        unset = frozenset(name for name, value in given.items() if value is None)
        return GenerationRequest(self.model, messages, sampling, unset, request_id)

    def _refuse_unsupported(self) -> None:
        wrong = {}
        for name, value in (self.model_extra or {}).items():
            neutral = UNSUPPORTED.get(name)
            if neutral is not None and value is not None and value not in neutral:
                or_send = f", or send {json.dumps(neutral[0])}" if neutral else ""
                wrong[name] = f"`{name}` is not supported. Leave it out{or_send}."
        if wrong:
            raise InvalidArgument(Reason.INVALID_REQUEST, " ".join(wrong.values()), field_violations=wrong)

    def _sampling(self) -> Sampling:
        return Sampling(
            temperature=0.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            # OpenAI's seeds may be 0 or negative; the domain's are positive.
            seed=None if self.seed is None else abs(self.seed) or MAX_SEED,
            max_tokens=self._limit(),
            stop=(self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ()),
            repetition_penalty=1.0 if self.repetition_penalty is None else self.repetition_penalty,
            schema=self.response_format.schema_text() if self.response_format else "",
            top_log_probabilities=self._top(),
        )

    def _limit(self) -> int:
        """Raises InvalidArgument for a limit below 1."""
        limit = self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens
        if limit is not None and limit < 1:
            field = "max_tokens" if self.max_completion_tokens is None else "max_completion_tokens"
            raise _invalid(Reason.INVALID_REQUEST, field, f"`{field}`: must be at least 1.")
        return limit or 0

    def _top(self) -> int | None:
        if self.logprobs:
            return self.top_logprobs or 0
        if self.top_logprobs:
            raise _invalid(Reason.INVALID_REQUEST, "top_logprobs", "`top_logprobs` needs `logprobs`.")
        return None


def _invalid(reason: Reason, field: str, message: str) -> InvalidArgument:
    return InvalidArgument(reason, message, field_violations={field: message})


def models(names: Iterable[str]) -> dict[str, Any]:
    """The list of models."""
    return {"object": "list", "data": [model(name) for name in names]}


def model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "tailor"}


class FeedbackBody(BaseModel):
    """The body of feedback on a draft."""

    model_config = ConfigDict(extra="forbid")

    verdict: Literal["accepted", "edited", "rejected"]
    edited_text: str = ""
    stars: int = Field(0, ge=0, le=5)
    comment: str = ""

    def to_feedback(self, draft_id: str) -> DraftFeedback:
        return DraftFeedback(draft_id, self.verdict, self.edited_text, self.stars, self.comment)


def feedback(draft_id: str, stored: StoredFeedback) -> dict[str, Any]:
    """What was stored, as the body of an answer."""
    return {
        "id": stored.feedback_id,
        "object": "draft.feedback",
        "created": round(stored.moment),
        "draft_id": draft_id,
        "edited_text_stored": stored.has_edited_text,
    }


def completion(model: str, answer: HttpAnswer) -> dict[str, Any]:
    """A whole answer."""
    message = {"role": "assistant", "content": answer.text} | _reasoning(answer.thought)
    choice = {"index": 0, "message": message, "finish_reason": answer.finish_reason}
    choice["logprobs"] = _log_probabilities(answer.log_probabilities)
    return _head(model, answer, "chat.completion") | {"choices": [choice], "usage": _usage(answer)}


def chunks(
    model: str, answer: HttpAnswer, check_key: Callable[[], None], note_code: Callable[[str], None], *, usage: bool
) -> Iterator[str]:
    """An answer as server-sent events. An error of the answer, or of `check_key` meanwhile, is the last event. Notes its final code."""
    yield _line(model, answer, {"role": "assistant", "content": ""})
    try:
        for piece in answer:
            check_key()
            if piece.thought:
                yield _line(model, answer, _reasoning(piece.thought))
            if piece.text or piece.log_probabilities:
                yield _line(model, answer, {"content": piece.text}, log_probabilities=piece.log_probabilities)
    except TailorError as failure:
        note_code(failure.code.name)
        yield _data(error(failure.reason, failure.message, 500))
        return
    yield _line(model, answer, {}, answer.finish_reason)
    if usage:
        yield _data(_head(model, answer, "chat.completion.chunk") | {"choices": [], "usage": _usage(answer)})
    # Its reader may leave at once.
    note_code("OK")
    yield "data: [DONE]\n\n"


def error(reason: str, message: str, status: int, param: str | None = None) -> dict[str, Any]:
    """An error's body."""
    kind = ERROR_TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": reason}}


def domain_error(failure: TailorError) -> dict[str, Any]:
    """The body of a domain error, with OpenAI's names for the fields."""
    message = failure.message
    for name in failure.field_violations:
        message = message.replace(f"{name}:", f"`{openai_name(name)}`:")
    param = next(map(openai_name, failure.field_violations), None)
    return error(failure.reason, message, status_of(failure), param)


def status_of(failure: TailorError) -> int:
    """The HTTP status of a domain error."""
    return STATUSES.get(failure.reason, failure.code.http_status)


def request_id(header: str) -> str:
    """The value of `Idempotency-Key`: a quoted string of structured fields (RFC 9651), or the bare text that many clients send."""
    text = header.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


def openai_name(field: str) -> str:
    """OpenAI's name for a field of the domain."""
    field = field.removeprefix("sampling.")
    return OPENAI_NAMES.get(field, field)


def malformed_error(errors: Sequence[Any]) -> dict[str, Any]:
    """The body for a request that pydantic refused: one sentence per field."""
    fields: dict[str, list[str]] = {}
    for detail in errors:
        field = _field(detail["loc"][1:])
        if field and detail["type"] != "json_invalid":
            fields.setdefault(field, []).append(_sentence(detail))
    message = " ".join(f"`{field}`: {', or '.join(fields[field])}." for field in sorted(fields)) or NOT_AN_OBJECT
    return error(Reason.INVALID_REQUEST, message, 400, min(fields, default=None))


def _sentence(detail: Mapping[str, Any]) -> str:
    if detail["type"] == "too_long":
        return f"must have at most {detail['ctx']['max_length']} entries"
    message = str(detail["msg"])
    return message[:1].lower() + message[1:]


def _field(location: Sequence[Any]) -> str:
    """A field's name from pydantic's location, without the types of a union."""
    return ".".join(str(part) for part in location if part != "str" and "[" not in str(part))


def _reasoning(thought: str) -> dict[str, str]:
    """The field for thoughts that DeepSeek introduced, and that other servers of this API took over."""
    return {"reasoning_content": thought} if thought else {}


def _line(
    model: str,
    answer: HttpAnswer,
    delta: dict[str, str],
    finish: str | None = None,
    log_probabilities: tuple[TokenLogProbability, ...] = (),
) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": _log_probabilities(log_probabilities)}
    return _data(_head(model, answer, "chat.completion.chunk") | {"choices": [choice]})


def _log_probabilities(tokens: tuple[TokenLogProbability, ...]) -> dict[str, Any] | None:
    if not tokens:
        return None
    content = [_likely(token.token) | {"top_logprobs": [_likely(top) for top in token.top]} for token in tokens]
    return {"content": content, "refusal": None}


def _likely(token: LikelyToken) -> dict[str, Any]:
    # The bytes of a part of a character are unknown.
    octets = None if PARTIAL in token.token else list(token.token.encode())
    return {"token": token.token, "logprob": token.log_probability, "bytes": octets}


def _head(model: str, answer: HttpAnswer, kind: str) -> dict[str, Any]:
    return {"id": answer.draft_id, "object": kind, "created": int(answer.moment), "model": model}


def _usage(answer: HttpAnswer) -> dict[str, int]:
    total = answer.prompt_tokens + answer.completion_tokens
    return {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "total_tokens": total,
    }


def _data(message: dict[str, Any]) -> str:
    return f"data: {json.dumps(message)}\n\n"
