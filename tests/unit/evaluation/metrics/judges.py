"""Judge models for tests, which answer by rules instead of weights, and rows."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from services.evaluation.domain import AnsweredRow, HeldOutRow, Score
from services.evaluation.ports import JudgeModel

Reply = Callable[[str, Mapping[str, Any]], Mapping[str, Any] | None]


class ScriptedJudge(JudgeModel):
    """Answers each question by a function of its text and schema, for 100 tokens, and keeps the questions."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self.questions: list[str] = []

    @property
    def name(self) -> str:
        return "scripted"

    @property
    def tokens(self) -> int:
        return 100 * len(self.questions)

    def ask(
        self, messages: Sequence[tuple[str, str]], schema: Mapping[str, Any], max_tokens: int
    ) -> Mapping[str, Any] | None:
        text = messages[-1][1]
        self.questions.append(text)
        return self._reply(text, schema)


def part(text: str, name: str) -> str:
    """The text between the marks of one part of a question."""
    match = re.search(rf"<<<{name}\n(.*?)\n{name}>>>", text, re.DOTALL)
    return match[1] if match else ""


def answered(
    answer: str | None,
    reference: str = "",
    prompt: str = "Write.",
    *,
    task: str = "section",
    language: str = "en",
    key_insights: str = "",
    score: Score | None = None,
    rejected_score: Score | None = None,
) -> AnsweredRow:
    row = HeldOutRow("row_1", task, ("doc_1",), (("user", prompt),), reference, language, key_insights)
    return AnsweredRow(row, answer, score, rejected_score=rejected_score)
