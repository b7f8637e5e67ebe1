"""Rows that a teacher makes: what is asked, what of it is taken, and what happens while it does not answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from services.synthetic.domain import (
    Lesson,
    Row,
    RowLimits,
    Specialist,
    TeacherUse,
    estimate_tokens,
    fingerprint,
)
from services.synthetic.ports import Repository, Teacher
from services.synthetic.spans import Passage
from services.synthetic.structure import words
from tailor.errors import TailorError

PROMPT_VERSION = 1
SHINGLE = 3
REPEATED = 0.8


@dataclass(frozen=True)
class TeacherLimits:
    """How much a teacher is asked: passages in one build, attempts a passage."""

    max_passages: int = 64
    attempts: int = 4


class Lessons:
    """Asks a teacher, remembers what it said, and keeps what is fit to learn from."""

    def __init__(
        self, teacher: Teacher, repository: Repository, limits: TeacherLimits, sleep: Callable[[float], None]
    ) -> None:
        self._teacher = teacher
        self._repository = repository
        self._limits = limits
        self._sleep = sleep

    @property
    def model(self) -> str:
        """Name of the teacher."""
        return self._teacher.model

    def rows(
        self, passages: Sequence[tuple[str, Passage]], specialist: Specialist, limits: RowLimits
    ) -> tuple[list[Row], TeacherUse]:
        """Rows about (document id, passage) pairs. Once the teacher failed all its attempts it is not asked again in this call."""
        ordered = sorted(passages, key=lambda pair: fingerprint("passage", pair[0], pair[1].whole))
        chosen = ordered[: self._limits.max_passages]
        kept: list[Row] = []
        use, down = TeacherUse(asked=len(chosen)), False
        for document_id, passage in chosen:
            lesson = self._lesson(document_id, passage.whole, ask=not down)
            if lesson is None:
                use, down = replace(use, failed=use.failed + 1), True
                continue
            made = [
                Row(
                    "teacher",
                    (document_id,),
                    prompt,
                    answer,
                    f"teacher:{self.model}",
                    specialist.system_prompt,
                    passage,
                )
                for prompt, answer in lesson.pairs
            ]
            fit = accepted(made, passage.whole, kept, limits)
            kept.extend(fit)
            use = replace(use, refused=use.refused + len(made) - len(fit), tokens=use.tokens + lesson.tokens)
        return kept, use

    def _lesson(self, document_id: str, passage: str, *, ask: bool) -> Lesson | None:
        key = fingerprint(PROMPT_VERSION, self.model, passage)
        known = self._repository.lesson(key)
        if known is not None or not ask:
            return known
        for attempt in range(self._limits.attempts):
            try:
                lesson = self._teacher.teach(passage)
            except TailorError as error:
                if not error.retryable:
                    lesson = Lesson((), 0)
                elif attempt + 1 < self._limits.attempts:
                    self._sleep(min(8.0, 0.5 * 2**attempt))
                    continue
                else:
                    return None
            self._repository.keep_lesson(key, lesson, document_id)
            return lesson
        return None


def accepted(made: Sequence[Row], passage: str, before: Sequence[Row], limits: RowLimits) -> list[Row]:
    """The rows that are neither empty, too long, a repetition of the passage nor nearly the same as one that was kept."""
    source = _shingles(passage)
    kept: list[Row] = []
    for row in made:
        answer = _shingles(row.completion)
        repeats = len(row.completion) > 0.7 * len(passage) and _share(answer, source) > REPEATED
        known = any(_alike(answer, _shingles(other.completion)) for other in [*before, *kept])
        short = estimate_tokens(row.completion) < limits.min_answer_tokens or not row.prompt.strip()
        if not (repeats or known or short or row.tokens > limits.max_row_tokens):
            kept.append(row)
    return kept


def _shingles(text: str) -> frozenset[tuple[str, ...]]:
    found = words(text)
    return frozenset(tuple(found[start : start + SHINGLE]) for start in range(max(1, len(found) - SHINGLE + 1)))


def _share(part: frozenset[tuple[str, ...]], whole: frozenset[tuple[str, ...]]) -> float:
    return len(part & whole) / max(1, len(part))


def _alike(one: frozenset[tuple[str, ...]], other: frozenset[tuple[str, ...]]) -> bool:
    return len(one & other) > REPEATED * len(one | other)
