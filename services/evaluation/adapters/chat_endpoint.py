"""A model behind any OpenAI-style endpoint."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openai
from pydantic import SecretStr

from services.evaluation.domain import Answer
from services.evaluation.ports import ChatEndpoint
from services.evaluation.settings import Settings
from tailor.chat_completions import ChatCompletions
from tailor.errors import FailedPrecondition, Reason, ResourceExhausted, TailorError, Unavailable
from tailor.values import SamplingDefaults

# Answers that are drawn are drawn the same way again, where the endpoint supports it.
SEED = 1
QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
REFUSALS = {
    401: (Reason.EXTERNAL_KEY_REFUSED, "refused the key"),
    402: (Reason.EXTERNAL_QUOTA, "has no quota left"),
    403: (Reason.EXTERNAL_KEY_REFUSED, "refused the key"),
    404: (Reason.UNKNOWN_EXTERNAL_MODEL, "does not have the model, or the address is wrong"),
}


class OpenAiEndpoint(ChatEndpoint):
    """Makes one attempt per call. Errors name the model by its label and never quote the endpoint's, which may repeat the prompt."""

    def __init__(
        self,
        label: str,
        base_url: str,
        model: str,
        *,
        api_key: str = "",
        timeout_seconds: float = 120,
        ca_file: Path | None = None,
    ) -> None:
        self._chat = ChatCompletions(base_url, model, api_key=api_key, timeout_seconds=timeout_seconds, ca_file=ca_file)
        self._label = label

    @property
    def address(self) -> str:
        return self._chat.address

    @property
    def model(self) -> str:
        return self._chat.model

    def complete(self, messages: Sequence[tuple[str, str]], sampling: SamplingDefaults) -> Answer:
        started = time.monotonic()
        try:
            reply = self._chat.create(messages, _options(sampling))
        except openai.OpenAIError as error:
            raise self._error(error) from None
        return _to_answer(reply, time.monotonic() - started)

    def _error(self, error: openai.OpenAIError) -> TailorError:
        status = error.status_code if isinstance(error, openai.APIStatusError) else 0
        if status in REFUSALS or (status == 429 and isinstance(error, openai.APIError) and error.code in QUOTA):
            return self._refusal(status, *REFUSALS.get(status, REFUSALS[402]))
        if status == 429:
            return ResourceExhausted(
                Reason.EXTERNAL_BUSY, f"The external model {self._label} limits the rate of calls."
            )
        if 400 <= status < 500 and status not in (408, 409):
            return self._refusal(status, Reason.EXTERNAL_REFUSED, "refused a request")
        what = f"status {status}" if status else type(error).__name__
        return Unavailable(
            Reason.EXTERNAL_UNAVAILABLE,
            f"The external model {self._label} does not answer ({what}). Check its address, the way out to it, and its time limit.",
        )

    def _refusal(self, status: int, reason: Reason, what: str) -> FailedPrecondition:
        return FailedPrecondition(reason, f"The external model {self._label} {what} (status {status}).")


def _options(sampling: SamplingDefaults) -> dict[str, Any]:
    options: dict[str, Any] = {"temperature": sampling.temperature}
    if sampling.temperature:
        options |= {"top_p": sampling.top_p, "seed": SEED}
    if sampling.max_tokens:
        options["max_tokens"] = sampling.max_tokens
    return options


def external_endpoints(settings: Settings) -> dict[str, ChatEndpoint]:
    """The external models of the settings, by name."""
    return {
        name: OpenAiEndpoint(
            name,
            model.base_url,
            model.model,
            api_key=settings.external_model_keys.get(name, SecretStr("")).get_secret_value(),
            timeout_seconds=model.timeout_seconds,
            ca_file=settings.tls_ca_file,
        )
        for name, model in settings.external_models.items()
    }


def _to_answer(reply: Any, seconds: float) -> Answer:
    choice, usage = reply.choices[0] if reply.choices else None, reply.usage
    return Answer(
        text=(choice.message.content or "") if choice else "",
        finished=choice is None or choice.finish_reason != "length",
        seconds=seconds,
        prompt_tokens=usage.prompt_tokens if usage else 0,
        tokens=usage.completion_tokens if usage else 0,
    )
