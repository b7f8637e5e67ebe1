"""Teachers and judges behind any OpenAI-style endpoint."""

from pathlib import Path
from typing import Any

import openai

from services.synthetic.ports import ChatModel, LostAnswer
from services.synthetic.synthesis_domain import Completion, Messages, TokenCount
from tailor.chat_completions import ChatCompletions
from tailor.errors import FailedPrecondition, InvalidArgument, Reason, ResourceExhausted, TailorError, Unavailable

# A gateway's own answers: the model behind it may have answered, and billed, all the same.
GATEWAY_ERRORS = frozenset({502, 504})
# Statuses that concern every prompt.
FOR_EVERY_PROMPT = {
    401: (Reason.TEACHER_KEY_REFUSED, "The teacher refused the key"),
    402: (Reason.TEACHER_QUOTA, "The quota at the teacher is used up"),
    403: (Reason.TEACHER_KEY_REFUSED, "The teacher refused the key"),
    404: (Reason.TEACHER_UNKNOWN_MODEL, "The teacher does not have the model, or the address is wrong"),
}
QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
# Errors of the HTTP library before a request is sent, by name: which library it is depends on the client's version.
NOT_SENT = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError"})


class OpenAiModel(ChatModel):
    """Makes one attempt per call; the caller retries. Thread-safe."""

    def __init__(
        self,
        base_url: str,
        api_key: str,
        model: str,
        *,
        timeout_seconds: float = 120,
        proxy: str = "",
        ca_file: Path | None = None,
    ) -> None:
        self._chat = ChatCompletions(
            base_url, model, api_key=api_key, timeout_seconds=timeout_seconds, proxy=proxy, ca_file=ca_file
        )

    @property
    def model(self) -> str:
        return self._chat.model

    def complete(
        self, messages: Messages, *, max_tokens: int, temperature: float, schema: dict[str, object]
    ) -> Completion:
        options = {
            "max_tokens": max_tokens,
            "temperature": temperature,
            "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}},
        }
        try:
            return _to_completion(self._chat.create(messages, options))
        except openai.BadRequestError:
            raise InvalidArgument(Reason.TEACHER_REFUSED, "The teacher refused this prompt (status 400).") from None
        except openai.OpenAIError as error:
            # The library's message may repeat the prompt or a part of the key.
            raise to_error(error) from None


def _to_completion(answer: Any) -> Completion:
    choice = answer.choices[0] if answer.choices else None
    usage = answer.usage
    tokens = TokenCount(usage.prompt_tokens, usage.completion_tokens) if usage else None
    text = (choice.message.content or "") if choice else ""
    return Completion(text, tokens, (choice.finish_reason or "stop") if choice else "stop")


def to_error(error: openai.OpenAIError) -> TailorError:
    """The TailorError of a failed call: what the caller should do about it, and whether it may have been billed."""
    if isinstance(error, openai.APIStatusError):
        return _status_error(error)
    if type(error.__cause__).__name__ in NOT_SENT:
        return Unavailable(
            Reason.TEACHER_UNAVAILABLE,
            "The teacher cannot be reached. Check its address and the way out to it (TAILOR_TEACHER_PROXY).",
        )
    if isinstance(error, openai.APITimeoutError):
        return LostAnswer(
            Reason.TEACHER_TIMEOUT, "The teacher did not answer in time (TAILOR_TEACHER_TIMEOUT_SECONDS)."
        )
    return LostAnswer(Reason.TEACHER_UNAVAILABLE, f"The teacher's answer was lost ({type(error).__name__}).")


def _status_error(error: openai.APIStatusError) -> TailorError:
    status = error.status_code
    if status in FOR_EVERY_PROMPT or (status == 429 and error.code in QUOTA):
        reason, message = FOR_EVERY_PROMPT.get(status, FOR_EVERY_PROMPT[402])
        return FailedPrecondition(reason, f"{message} (status {status}).")
    if status == 429:
        return ResourceExhausted(
            Reason.TEACHER_BUSY, "The teacher limits the rate of calls.", retry_after_seconds=_retry_after(error)
        )
    if status in GATEWAY_ERRORS:
        return LostAnswer(Reason.TEACHER_UNAVAILABLE, f"The teacher's gateway failed (status {status}).")
    if status >= 500 or status in (408, 409):
        return Unavailable(
            Reason.TEACHER_UNAVAILABLE,
            f"The teacher failed (status {status}).",
            retry_after_seconds=_retry_after(error),
        )
    return InvalidArgument(Reason.TEACHER_REFUSED, f"The teacher refused this prompt (status {status}).")


def _retry_after(error: openai.APIStatusError) -> float | None:
    """Seconds of the Retry-After header; None if it is absent or a date."""
    try:
        return float(error.response.headers.get("retry-after", ""))
    except ValueError:
        return None
