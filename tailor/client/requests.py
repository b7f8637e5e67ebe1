"""Turn the arguments of both clients into requests."""

import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypedDict, Unpack

from tailor.api.common.v1 import common_pb2
from tailor.api.inference.v1 import inference_pb2
from tailor.client.answers import Message
from tailor.errors import InvalidArgument, Reason, Unauthenticated

TIMEOUT_SECONDS = 300.0
# What became of an answer: it was used as it is, with changes, or not at all.
Verdict = Literal["accepted", "edited", "rejected"]
VERDICTS: Mapping[str, common_pb2.FeedbackVerdict.ValueType] = {
    "accepted": common_pb2.FEEDBACK_VERDICT_ACCEPTED,
    "edited": common_pb2.FEEDBACK_VERDICT_EDITED,
    "rejected": common_pb2.FEEDBACK_VERDICT_REJECTED,
}


class Options(TypedDict, total=False):
    """Optional arguments of `generate` and `stream`.

    Without `temperature`, `top_p`, `max_tokens` or `repetition_penalty`, the specialist's own sampling applies.

    - `messages`: a chat instead of a prompt; its last message is the user's.
    - `temperature`: 0 always picks the likeliest token.
    - `top_p`: share of the probability mass to draw from, at most 1.
    - `seed`: makes sampling repeatable.
    - `max_tokens`: maximum length of the answer.
    - `stop`: up to four texts that end the answer.
    - `repetition_penalty`: 1 for none, at most 2.
    - `json_schema`: a JSON schema, as an object or as text, that the answer follows. If the answer ends by `length`, it is cut off and
      not valid JSON.
    - `log_probabilities`: return the log-probabilities of the answer's tokens.
    - `top_log_probabilities`: return those of this many likeliest tokens at each position as well.
    - `timeout_seconds`: for the whole call, retries included; 300 by default.
    - `request_id`: makes a call that you repeat within five minutes the same call: it gets the first one's answer and leaves no second
      draft, at the replica that answered. By default, each call has another id, which the retries of the client share.
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
    request_id: str


def to_request(model: str, prompt: str | None, **options: Unpack[Options]) -> inference_pb2.GenerateRequest:
    """Build the request, with a new request id if none is given.

    Raises InvalidArgument unless there is either a prompt or messages, or if a value cannot be sent.
    """
    messages = options.get("messages", ())
    if (prompt is None) == (not messages):
        raise InvalidArgument(Reason.PROMPT_OR_MESSAGES, "Give either a prompt or messages.")
    schema = options.get("json_schema", "")
    with _sendable():
        return inference_pb2.GenerateRequest(
            model=model,
            prompt=prompt or "",
            messages=[inference_pb2.Message(role=message.role, content=message.content) for message in messages],
            sampling=inference_pb2.Sampling(
                temperature=options.get("temperature"),
                top_p=options.get("top_p", 0.0),
                seed=options.get("seed", 0),
                max_tokens=options.get("max_tokens", 0),
                stop=options.get("stop", ()),
                repetition_penalty=options.get("repetition_penalty", 0.0),
            ),
            json_schema=schema if isinstance(schema, str) else json.dumps(schema),
            log_probabilities=options.get("log_probabilities", False),
            top_log_probabilities=options.get("top_log_probabilities", 0),
            request_id=options.get("request_id") or uuid.uuid4().hex,
        )


def to_feedback_request(
    draft_id: str, verdict: Verdict, *, edited_text: str, stars: int, comment: str
) -> inference_pb2.RecordFeedbackRequest:
    """Build the request. Raises InvalidArgument for an unknown verdict, or a value that cannot be sent."""
    if verdict not in VERDICTS:
        raise InvalidArgument(
            Reason.INVALID_FEEDBACK,
            "The feedback is invalid.",
            field_violations={"verdict": "must be accepted, edited or rejected"},
        )
    with _sendable():
        return inference_pb2.RecordFeedbackRequest(
            draft_id=draft_id, verdict=VERDICTS[verdict], edited_text=edited_text, stars=stars, comment=comment
        )


def to_outcome_request(
    draft_id: str, *, specialist: str, request_id: str, minutes: float, satisfaction: int
) -> inference_pb2.ReportOutcomeRequest:
    """Build the request, with a new request id if none is given. Raises InvalidArgument for a value that cannot be sent."""
    with _sendable():
        return inference_pb2.ReportOutcomeRequest(
            draft_id=draft_id,
            specialist=specialist,
            request_id=request_id or uuid.uuid4().hex,
            minutes=minutes,
            satisfaction=satisfaction,
        )


@contextmanager
def _sendable() -> Iterator[None]:
    """Raise InvalidArgument (NOT_FOR_THE_WIRE) for a value that a message cannot hold."""
    try:
        yield
    except ValueError:
        raise InvalidArgument(
            Reason.NOT_FOR_THE_WIRE, "A number is out of range, or a text contains an unpaired surrogate."
        ) from None


def to_addresses(address: str | Sequence[str]) -> list[str]:
    """List the replicas' addresses. Raises InvalidArgument if there are none."""
    parts = address.split(",") if isinstance(address, str) else address
    addresses = [part.strip() for part in parts if part.strip()]
    if not addresses:
        raise InvalidArgument(Reason.NO_ADDRESS, "Give HOST:PORT of at least one replica.")
    return addresses


def to_key(api_key: str | None) -> str:
    """The given key, or TAILOR_API_KEY. Raises Unauthenticated if neither is set."""
    key = api_key or os.environ.get("TAILOR_API_KEY", "")
    if not key:
        raise Unauthenticated(Reason.NO_API_KEY, "Give api_key, or set TAILOR_API_KEY.")
    return key
