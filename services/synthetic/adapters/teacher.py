"""A teacher behind any OpenAI-style endpoint."""

import json
from typing import Any

import openai

from services.synthetic.domain import TeacherAnswer
from services.synthetic.ports import Teacher
from services.synthetic.settings import Settings
from tailor.errors import InvalidArgument, Reason, Unavailable

INSTRUCTION = (
    "You make training data for a writing assistant. Read the passage and write {count} requests that a colleague might "
    "make about it, each with the answer, in the passage's own style and terms and true to it. Do not copy the passage. "
    # english: allow alone
    'Answer with JSON alone: [{{"question": "...", "answer": "..."}}].'
)
MAX_TOKENS = 700


class OpenAiTeacher(Teacher):
    """Makes one attempt per call; the caller retries."""

    def __init__(self, base_url: str, api_key: str, model: str, *, count: int = 2, timeout_seconds: float = 60) -> None:
        self._client = openai.OpenAI(base_url=base_url, api_key=api_key, max_retries=0, timeout=timeout_seconds)
        self._model = model
        self._count = count

    @classmethod
    def from_settings(cls, settings: Settings) -> "OpenAiTeacher | None":
        """None if no teacher is configured."""
        if not settings.teacher_base_url:
            return None
        return cls(settings.teacher_base_url, settings.teacher_api_key.get_secret_value(), settings.teacher_model)

    @property
    def model(self) -> str:
        return self._model

    def ask(self, passage: str) -> TeacherAnswer:
        try:
            answer = self._client.chat.completions.create(
                model=self._model,
                messages=[
                    {"role": "system", "content": INSTRUCTION.format(count=self._count)},
                    {"role": "user", "content": passage},
                ],
                temperature=0,
                max_tokens=MAX_TOKENS,
            )
        except (openai.APIConnectionError, openai.RateLimitError, openai.InternalServerError) as error:
            raise Unavailable(
                Reason.TEACHER_UNAVAILABLE, f"The teacher does not answer ({type(error).__name__})."
            ) from None
        except openai.OpenAIError as error:
            raise InvalidArgument(
                Reason.TEACHER_REFUSED, f"The teacher refused the request ({type(error).__name__})."
            ) from None
        text = answer.choices[0].message.content if answer.choices else ""
        return TeacherAnswer(parse_pairs(text or ""), answer.usage.total_tokens if answer.usage else 0)


def parse_pairs(text: str) -> tuple[tuple[str, str], ...]:
    """The (question, answer) pairs of an answer; empty if it is not the requested JSON."""
    start, end = text.find("["), text.rfind("]")
    try:
        entries: Any = json.loads(text[start : end + 1])
    except ValueError:
        return ()
    objects = [entry for entry in entries if isinstance(entry, dict)]
    pairs = [(entry.get("question"), entry.get("answer")) for entry in objects]
    return tuple((q.strip(), a.strip()) for q, a in pairs if isinstance(q, str) and isinstance(a, str))
