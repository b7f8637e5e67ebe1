"""What both clients take, as the wire has it."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, Unpack

from tailor.api.inference.v1 import inference_pb2
from tailor.client.answers import Message
from tailor.errors import InvalidArgument, Reason, Unauthenticated

TIMEOUT_SECONDS = 300.0


class Options(TypedDict, total=False):
    """What a question may say beside its prompt.

    `messages` is a chat instead of a prompt; the last turn is the user's. `temperature` is 0 by default, which draws the likeliest token
    always; `seed` makes a draw repeatable; `max_tokens` is 256 by default; `stop` has up to four texts that end the answer.
    `json_schema` is a JSON schema, as an object or as text, that the answer keeps to; one that ends by `length` is cut and no JSON.
    `log_probabilities` tells those of the answer's tokens, and `top_log_probabilities` of so many of the likeliest in their places.
    `timeout_seconds` (300) is for the whole call, retries included.
    """

    messages: Sequence[Message]
    temperature: float
    top_p: float
    seed: int
    max_tokens: int
    stop: Sequence[str]
    repetition_penalty: float
    json_schema: Mapping[str, Any] | str
    log_probabilities: bool
    top_log_probabilities: int
    timeout_seconds: float


def to_request(model: str, prompt: str | None, **options: Unpack[Options]) -> inference_pb2.GenerateRequest:
    """The wire's request; InvalidArgument unless there is either a prompt or messages, and where something does not go over the wire."""
    try:
        return _to_request(model, prompt, **options)
    except ValueError:
        raise InvalidArgument(
            Reason.NOT_FOR_THE_WIRE, "A number is beyond its range, or a text has half a character (a lone surrogate)."
        ) from None


def _to_request(model: str, prompt: str | None, **options: Unpack[Options]) -> inference_pb2.GenerateRequest:
    messages = options.get("messages", ())
    if (prompt is None) == (not messages):
        raise InvalidArgument(Reason.PROMPT_OR_MESSAGES, "Give either a prompt or messages.")
    schema = options.get("json_schema", "")
    return inference_pb2.GenerateRequest(
        model=model,
        prompt=prompt or "",
        messages=[inference_pb2.Message(role=message.role, content=message.content) for message in messages],
        sampling=inference_pb2.Sampling(
            temperature=options.get("temperature", 0.0),
            top_p=options.get("top_p", 1.0),
            seed=options.get("seed", 0),
            max_tokens=options.get("max_tokens", 0),
            stop=options.get("stop", ()),
            repetition_penalty=options.get("repetition_penalty", 1.0),
        ),
        json_schema=schema if isinstance(schema, str) else json.dumps(schema),
        log_probabilities=options.get("log_probabilities", False),
        top_log_probabilities=options.get("top_log_probabilities", 0),
    )


def to_addresses(address: str | Sequence[str]) -> list[str]:
    """The replicas' addresses; InvalidArgument where there is none."""
    listed = address.split(",") if isinstance(address, str) else address
    addresses = [one.strip() for one in listed if one.strip()]
    if not addresses:
        raise InvalidArgument(Reason.NO_ADDRESS, "Give HOST:PORT of at least one replica.")
    return addresses


def to_key(api_key: str | None) -> str:
    """The key as given, else TAILOR_API_KEY; Unauthenticated where there is neither."""
    found = api_key or os.environ.get("TAILOR_API_KEY", "")
    if not found:
        raise Unauthenticated(Reason.NO_API_KEY, "Give api_key, or set TAILOR_API_KEY.")
    return found
