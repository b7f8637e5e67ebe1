"""The judge model behind any OpenAI-style endpoint, among them Tailor's own base."""

import json
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import openai
import referencing
from jsonschema import Draft202012Validator

from services.evaluation.ports import JudgeModel
from services.evaluation.settings import Settings
from tailor.chat_completions import ChatCompletions
from tailor.errors import FailedPrecondition, Reason, TailorError, Unavailable
from tailor.retry import retry

ATTEMPTS = 5
FENCE = re.compile(r"\s*```(?:json)?\s*\n(.*)\n```\s*", re.DOTALL)
MAX_ANSWER_CHARS = 200_000
# More tokens of one prompt and answer are not counted.
MAX_ANSWER_TOKENS = 10_000_000


class OpenAiJudge(JudgeModel):
    """Asks for structured output; from an endpoint that has none, only an answer that is the JSON object is taken. Thread-safe."""

    def __init__(
        self, base_url: str, api_key: str, model: str, *, timeout_seconds: float = 120, ca_file: Path | None = None
    ) -> None:
        self._chat = ChatCompletions(base_url, model, api_key=api_key, timeout_seconds=timeout_seconds, ca_file=ca_file)
        self._lock = threading.Lock()
        self._tokens = 0

    @property
    def name(self) -> str:
        return self._chat.model

    @property
    def tokens(self) -> int:
        with self._lock:
            return self._tokens

    def ask(
        self, messages: Sequence[tuple[str, str]], schema: Mapping[str, Any], max_tokens: int
    ) -> Mapping[str, Any] | None:
        text = retry(
            lambda: self._complete(messages, schema, max_tokens),
            attempts=ATTEMPTS,
            initial_seconds=0.5,
            max_seconds=20.0,
        )
        return parse_answer(text, schema)

    def _complete(self, messages: Sequence[tuple[str, str]], schema: Mapping[str, Any], max_tokens: int) -> str:
        response_format = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
        options = {"max_tokens": max_tokens, "temperature": 0, "response_format": response_format}
        try:
            answer = self._chat.create(_with_schema(messages, schema), options)
        except openai.BadRequestError:
            # This prompt is too long, or filtered: a counted failure.
            return ""
        except openai.OpenAIError as error:
            # The library's message may repeat the prompt or a part of the key.
            raise to_error(error) from None
        with self._lock:
            self._tokens += count_tokens(answer.usage)
        return (answer.choices[0].message.content or "") if answer.choices else ""


def open_judge(settings: Settings) -> OpenAiJudge | None:
    """None if no judge model is set."""
    if not settings.judge_base_url or not settings.judge_model:
        return None
    key, seconds = settings.judge_api_key.get_secret_value(), settings.judge_timeout_seconds
    return OpenAiJudge(
        settings.judge_base_url, key, settings.judge_model, timeout_seconds=seconds, ca_file=settings.tls_ca_file
    )


def parse_answer(text: str, schema: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The JSON object of an answer, alone or in one code fence; None if it is anything else or does not match the schema."""
    fenced = FENCE.fullmatch(text[:MAX_ANSWER_CHARS])
    try:
        content = json.loads(fenced[1] if fenced else text[:MAX_ANSWER_CHARS])
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    is_valid = Draft202012Validator(schema, registry=referencing.Registry()).is_valid(content)
    return content if is_valid else None


def count_tokens(usage: Any) -> int:
    """The tokens that an endpoint reports for an answer; 0 if it reports none, or no plausible number."""
    tokens = getattr(usage, "total_tokens", 0)
    return tokens if isinstance(tokens, int) and 0 < tokens <= MAX_ANSWER_TOKENS else 0


def to_error(error: openai.OpenAIError) -> TailorError:
    """Unavailable if the call is worth another try, otherwise FailedPrecondition (JUDGE_REFUSED)."""
    status = error.status_code if isinstance(error, openai.APIStatusError) else None
    if status is not None and status < 500 and status not in (408, 409, 429):
        return FailedPrecondition(
            Reason.JUDGE_REFUSED,
            f"The judge model's endpoint refuses the request (status {status}). Check TAILOR_JUDGE_BASE_URL, TAILOR_JUDGE_MODEL and"
            " the key.",
        )
    return Unavailable(Reason.JUDGE_UNAVAILABLE, f"The judge model does not answer ({status or type(error).__name__}).")


def _with_schema(messages: Sequence[tuple[str, str]], schema: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The chat with the schema at its end, for endpoints without structured output."""
    *earlier, (role, text) = messages
    return [*earlier, (role, f"{text}\n\nAnswer with a JSON object of this schema:\n{json.dumps(schema)}")]
