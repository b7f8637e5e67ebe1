"""A judge model that is asked each question once, and whose unusable answers are counted."""

import json
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from services.evaluation.ports import JudgeModel

Answer = Mapping[str, Any] | None


class RememberingJudge(JudgeModel):
    """Remembers the answers for one evaluation: references are read once for all models. Thread-safe.

    `calls` counts the questions that the model was asked, `failures` the answers that were not what the schema asks for. `tokens` are those
    since it was made: a replica runs one evaluation at a time.
    """

    def __init__(self, judge: JudgeModel) -> None:
        self._judge = judge
        self._earlier_tokens = judge.tokens
        self._answers: dict[str, Answer] = {}
        self._lock = threading.Lock()
        self.calls = 0
        self.failures = 0

    @property
    def name(self) -> str:
        return self._judge.name

    @property
    def tokens(self) -> int:
        return self._judge.tokens - self._earlier_tokens

    def ask(self, messages: Sequence[tuple[str, str]], schema: Mapping[str, Any], max_tokens: int) -> Answer:
        key = json.dumps([messages, schema])
        with self._lock:
            if key in self._answers:
                return self._answers[key]
        answer = self._judge.ask(messages, schema, max_tokens)
        with self._lock:
            self.calls += 1
            self.failures += answer is None
            return self._answers.setdefault(key, answer)
