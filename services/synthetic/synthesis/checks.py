"""Makes rows of a teacher's answers, and decides which are fit to learn from."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from services.synthetic.domain import Grounding, Row, Specialist
from services.synthetic.ports import TokenCounter
from services.synthetic.synthesis.domain import Refusal
from services.synthetic.synthesis.plan import TeacherRequest
from services.synthetic.synthesis.ports import Unsupported
from services.synthetic.synthesis.prompts import passage_text
from services.synthetic.synthesis.similar import HeldOutTexts, SimilarTexts, is_copy, quotes
from services.synthetic.synthesis.tasks import REWRITE, TRANSLATION

DIGITS = re.compile(r"\d")


@dataclass(frozen=True)
class Candidate:
    """A row with what the teacher wrote of it. `written` is compared with other rows, `source` with what it says."""

    request: TeacherRequest
    row: Row
    asked: str
    written: str

    @property
    def source(self) -> str:
        return passage_text(self.request.passage) if self.request.passage else ""


def make_candidate(
    request: TeacherRequest, pair: tuple[str, str], model: str, lineage: Sequence[tuple[str, str]]
) -> Candidate:
    """The row of one (request, answer) pair. For rewrites the passage is the answer, and the teacher's text occurs in the prompt."""
    task, (asked, written) = request.task, pair
    source = passage_text(request.passage) if request.passage else ""
    prompt, answer = (f"{asked}\n\n{source}" if task.shows_passage and source else asked), written
    if task.answers_with_passage:
        prompt, answer = f"{asked}\n\n{written}", request.passage.text if request.passage else ""
    view = (("view", task.view),) if task.view else ()
    row = Row(
        task=task.name,
        document_ids=request.document_ids,
        messages=(("user", prompt), ("assistant", answer)),
        made_by=f"teacher:{model}",
        language=request.language,
        grounding=task.grounding,
        places=(request.passage.place,) if request.passage and request.passage.document_id else (),
        spans=request.passage.spans if request.passage else (),
        lineage=(*lineage, *view),
    )
    return Candidate(request, row, asked, written)


@dataclass
class RowChecks:
    """The checks that cost no request. Not thread-safe."""

    specialist: Specialist
    counter: TokenCounter
    unsupported: Unsupported
    held_out: HeldOutTexts
    others: SimilarTexts = field(default_factory=SimilarTexts)

    def refuse(self, candidate: Candidate) -> Refusal | None:
        """The first reason against a row; None if there is none."""
        if (size := self._wrong_size(candidate)) is not None:
            return size
        if not self._is_faithful(candidate):
            return Refusal.UNFAITHFUL
        return self._duplicate(candidate)

    def add(self, row: Row) -> None:
        """Remember a row, so that later ones differ from it."""
        self.others.add(_comparison_text(row))

    def _wrong_size(self, candidate: Candidate) -> Refusal | None:
        may_be_short = candidate.request.task.may_be_short
        return find_wrong_size(candidate.row, self.specialist, self.counter, may_be_short=may_be_short)

    def _is_faithful(self, candidate: Candidate) -> bool:
        task, row, source = candidate.request.task, candidate.row, candidate.source
        if task.name == TRANSLATION.name:
            return _digits(candidate.written) == _digits(source)
        if task.quotes and not quotes(candidate.written, source):
            return False
        language = candidate.request.language
        if task.grounding is Grounding.CLOSED:
            return not any(self.unsupported(text, source, language) for text in (candidate.written, candidate.asked))
        if task.answers_with_passage and self.unsupported(candidate.written, source, language):
            return False
        return not self.unsupported(row.completion, row.prompt, language)

    def _duplicate(self, candidate: Candidate) -> Refusal | None:
        written, task = candidate.written, candidate.request.task
        if not task.quotes and any(is_copy(written, seed.text) for seed in candidate.request.seeds):
            return Refusal.NEAR_DUPLICATE_OF_SEED
        if self.held_out.has_similar(candidate.row.completion):
            return Refusal.NEAR_DUPLICATE_OF_HELD_OUT
        return Refusal.NEAR_DUPLICATE if self.others.has_similar(_comparison_text(candidate.row)) else None


def find_wrong_size(
    row: Row, specialist: Specialist, counter: TokenCounter, *, may_be_short: bool = False
) -> Refusal | None:
    """TOO_SHORT or TOO_LONG by the specialist's policy and the base's context; None if the row fits."""
    policy, prompt = specialist.rows, row.system_prompt or specialist.system_prompt
    contents = [content for _, content in row.messages]
    system, *counts = counter.count([prompt, *contents])
    if counts[-1] < policy.min_answer_tokens and not may_be_short:
        return Refusal.TOO_SHORT
    total = sum(counts) + system + counter.template_tokens(contents, has_system=bool(prompt))
    longest = min(policy.max_row_tokens or counter.context_tokens, counter.context_tokens)
    return Refusal.TOO_LONG if total > longest else None


def _comparison_text(row: Row) -> str:
    """What two rows are compared by: the answer with the request, which is the prompt's first paragraph; the generic text of rewrites."""
    if row.task == REWRITE.name:
        return row.prompt
    return f"{row.prompt.partition(chr(10) * 2)[0]}\n{row.completion}"


def _digits(text: str) -> list[str]:
    """The digits without their separators, which differ between languages."""
    return sorted(DIGITS.findall(text))
