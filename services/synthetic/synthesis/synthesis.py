"""Rows that a teacher writes: what it is asked, which of its answers are used, and what happens while it does not answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from services.synthetic.domain import Passage, Row, RowLimits, Specialist, TeacherAnswer, TeacherUse, fingerprint
from services.synthetic.ports import Teacher, TeacherAnswers
from services.synthetic.rows.teacher_rows import accept_rows
from tailor.errors import TailorError
from tailor.retry import retry

PROMPT_VERSION = 1


@dataclass(frozen=True)
class TeacherLimits:
    """How much a teacher is asked: passages per build, attempts per passage."""

    max_passages: int = 64
    attempts: int = 4


class Synthesis:
    """Asks a teacher about passages, stores its answers, and makes rows of those that are fit to learn from."""

    def __init__(
        self, teacher: Teacher, answers: TeacherAnswers, limits: TeacherLimits, sleep: Callable[[float], None]
    ) -> None:
        self._teacher = teacher
        self._answers = answers
        self._limits = limits
        self._sleep = sleep

    @property
    def model(self) -> str:
        """Name of the teacher."""
        return self._teacher.model

    def synthesize(
        self, passages: Sequence[tuple[str, Passage]], specialist: Specialist, limits: RowLimits
    ) -> tuple[list[Row], TeacherUse]:
        """Make rows about (document id, passage) pairs. Blocks.

        After a passage whose attempts all failed, this call does not ask the teacher again.
        """
        ordered = sorted(passages, key=lambda pair: fingerprint("passage", pair[0], pair[1].whole))
        chosen = ordered[: self._limits.max_passages]
        rows: list[Row] = []
        use, is_down = TeacherUse(asked=len(chosen)), False
        for document_id, passage in chosen:
            answer = self._answer(document_id, passage.whole, may_ask=not is_down)
            if answer is None:
                use, is_down = replace(use, failed=use.failed + 1), True
                continue
            candidates = [self._row(document_id, passage, pair, specialist) for pair in answer.pairs]
            accepted = accept_rows(candidates, passage.whole, rows, limits)
            rows.extend(accepted)
            refused = len(candidates) - len(accepted)
            use = replace(use, refused=use.refused + refused, tokens=use.tokens + answer.tokens)
        return rows, use

    def _row(self, document_id: str, passage: Passage, pair: tuple[str, str], specialist: Specialist) -> Row:
        prompt, answer = pair
        made_by = f"teacher:{self.model}"
        return Row("teacher", (document_id,), prompt, answer, made_by, specialist.system_prompt, passage)

    def _answer(self, document_id: str, passage: str, *, may_ask: bool) -> TeacherAnswer | None:
        key = fingerprint(PROMPT_VERSION, self.model, passage)
        known = self._answers.teacher_answer(key)
        if known is not None or not may_ask:
            return known
        try:
            answer = retry(
                lambda: self._teacher.ask(passage),
                attempts=self._limits.attempts,
                initial_seconds=0.5,
                max_seconds=8.0,
                sleep=self._sleep,
            )
        except TailorError as error:
            if error.retryable:
                return None
            # A passage that the teacher refuses is not asked about again.
            answer = TeacherAnswer((), 0)
        self._answers.keep_teacher_answer(key, answer, document_id)
        return answer
