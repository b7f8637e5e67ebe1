"""A teacher behind any OpenAI-style endpoint."""

import json
from typing import Any

import openai

from services.synthetic.domain import Lesson
from tailor.errors import InvalidArgument, Reason, Unavailable

INSTRUCTION = (
    "You make training data for a writing assistant. Read the passage and write {count} requests that a colleague might "
    "make about it, each with the answer, in the passage's own style and terms and true to it. Do not copy the passage. "
    'Answer with JSON alone: [{{"question": "...", "answer": "..."}}].'
)
MAX_TOKENS = 700


class OpenAiTeacher:
    """Satisfies `domain.Teacher`. It makes one attempt a call; who asks decides about more."""

    def __init__(self, base_url: str, api_key: str, model: str, *, count: int = 2, timeout_seconds: float = 60) -> None:
        self._client = openai.OpenAI(base_url=base_url, api_key=api_key, max_retries=0, timeout=timeout_seconds)
        self._model = model
        self._count = count

    @property
    def model(self) -> str:
        """Its name."""
        return self._model

    def teach(self, passage: str) -> Lesson:
        """Questions about a passage and their answers."""
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
            raise InvalidArgument(Reason.TEACHER_REFUSED, f"The teacher refused ({type(error).__name__}).") from None
        text = answer.choices[0].message.content if answer.choices else ""
        return Lesson(parse_pairs(text or ""), answer.usage.total_tokens if answer.usage else 0)


def parse_pairs(text: str) -> tuple[tuple[str, str], ...]:
    """The pairs of an answer, and none where it is not the JSON that was asked for."""
    start, end = text.find("["), text.rfind("]")
    try:
        entries: Any = json.loads(text[start : end + 1])
    except ValueError:
        return ()
    found = [entry for entry in entries if isinstance(entry, dict)]
    pairs = [(entry.get("question"), entry.get("answer")) for entry in found]
    return tuple((q.strip(), a.strip()) for q, a in pairs if isinstance(q, str) and isinstance(a, str))
