"""From a request to its stored rows: ask the teacher, check, translate back, have the row judged."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from sacrebleu.metrics import CHRF

from services.synthetic.domain import Row, Specialist
from services.synthetic.ports import SynthesisWork
from services.synthetic.synthesis.answers import parse_mark, parse_rows, parse_text
from services.synthetic.synthesis.checks import Candidate, RowChecks, make_candidate
from services.synthetic.synthesis.plan import SynthesisPlan, TeacherRequest
from services.synthetic.synthesis.prompts import (
    back_translation_messages,
    judge_messages,
    mark_schema,
    rows_schema,
    teacher_messages,
    text_schema,
)
from services.synthetic.synthesis.questions import Asker, TeacherQuestion
from services.synthetic.synthesis.tasks import TRANSLATION
from services.synthetic.synthesis_domain import (
    TEACH,
    ModelRole,
    Refusal,
    SampleState,
    StoredAnswer,
    Synthesis,
    SynthesisSample,
)
from tailor.errors import Reason, TailorError

JUDGE_TOKENS = 16


@dataclass
class SynthesisRowMaker(SynthesisWork):
    """Makes the rows of requests. Thread-safe. `room` is the number of rows that are still wanted."""

    synthesis: Synthesis
    plan: SynthesisPlan
    specialist: Specialist
    asker: Asker
    checks: RowChecks
    has_judge: bool
    room: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def instruction(self) -> str:
        """The synthesis's own, or that of the specialist's own task."""
        spec = self.synthesis.spec
        instructions = {task.name: task.instruction for task in self.specialist.rows.own_tasks}
        return spec.instruction or instructions.get(spec.task, "")

    @property
    def exhausted(self) -> str:
        return f"{self.plan.max_requests} requests gave too few rows. The refusals say why; give more seeds or a finer grid."

    @property
    def numbers(self) -> Sequence[int]:
        return range(self.plan.max_requests)

    def rows(self, number: int) -> int:
        return self.plan.request(number).task.rows

    def make(self, number: int) -> None:
        request = self.plan.request(number)
        answer = self.asker.ask(self._teach(request))
        samples: list[SynthesisSample] = []
        failure: TailorError | None = None
        for at, candidate in enumerate(self._candidates(request, answer)):
            if self.room <= 0:
                break
            try:
                samples.append(_name_by_place(self._sample(candidate, at), at))
            except TailorError as error:
                if error.reason != Reason.BUDGET_SPENT:
                    self._give_back(samples)
                    raise
                samples.append(_name_by_place(_refusal(candidate, Refusal.NOT_JUDGED), at))
                failure = error
        if not samples and self.room > 0:
            samples = [_unreadable(request, answer)]
        self.asker.syntheses.keep_samples(self.asker.job, request.number, samples)
        if failure is not None:
            raise failure

    def _teach(self, request: TeacherRequest) -> TeacherQuestion:
        spec = self.synthesis.spec
        return TeacherQuestion(
            request.number,
            TEACH,
            ModelRole.TEACHER,
            teacher_messages(spec, self.instruction, request),
            spec.max_answer_tokens,
            spec.temperature,
            rows_schema(),
            request.document_ids,
        )

    def _candidates(self, request: TeacherRequest, answer: StoredAnswer) -> list[Candidate]:
        """At most as many as were asked for."""
        lineage = (
            ("synthesis", self.synthesis.synthesis_id),
            ("prompt_version", self.synthesis.prompt_version),
            ("seeds", " ".join(seed.key for seed in request.seeds)),
            ("judge", self.synthesis.judge),
        )
        pairs = () if answer.finish_reason == "length" else parse_rows(answer.text)
        return [make_candidate(request, pair, answer.model, lineage) for pair in pairs[: request.task.rows]]

    def _sample(self, candidate: Candidate, at: int) -> SynthesisSample:
        with self._lock:
            refusal = self.checks.refuse(candidate)
        if refusal is not None:
            return _refusal(candidate, refusal)
        score = self._back_translation(candidate, at)
        if score is not None and score < self.synthesis.spec.min_back_translation:
            return replace(_refusal(candidate, Refusal.LOW_BACK_TRANSLATION), back_translation=score)
        mark = self._mark(candidate, at)
        if mark < self.synthesis.spec.min_mark:
            return replace(_refusal(candidate, Refusal.LOW_MARK), mark=mark, back_translation=score)
        return replace(self._admit(candidate), mark=mark, back_translation=score)

    def _admit(self, candidate: Candidate) -> SynthesisSample:
        """Take a place among the wanted rows, unless another thread has added a similar row meanwhile."""
        with self._lock:
            refusal = self.checks.refuse(candidate)
            if refusal is not None:
                return _refusal(candidate, refusal)
            self.checks.add(candidate.row)
            self.room -= 1
        state = SampleState.PENDING if self.synthesis.spec.needs_review else SampleState.ACCEPTED
        return SynthesisSample(candidate.row.row_id, candidate.row, state, candidate.request.number)

    def _give_back(self, samples: list[SynthesisSample]) -> None:
        """Free the places of rows that are not stored. (The checks still know them; the request is made again in another run.)"""
        with self._lock:
            self.room += sum(sample.state is not SampleState.REFUSED for sample in samples)

    def _back_translation(self, candidate: Candidate, at: int) -> float | None:
        """The similarity of the passage and the translation of its translation; None for other tasks."""
        passage, spec = candidate.request.passage, self.synthesis.spec
        if candidate.request.task != TRANSLATION or passage is None:
            return None
        messages = back_translation_messages(candidate.written, passage.language or "en")
        answer = self.asker.ask(
            TeacherQuestion(
                candidate.request.number,
                f"back:{at}",
                ModelRole.TEACHER,
                messages,
                spec.max_answer_tokens,
                0.0,
                text_schema(),
                candidate.request.document_ids,
            )
        )
        return score_translation(parse_text(answer.text), candidate.source)

    def _mark(self, candidate: Candidate, at: int) -> int:
        """The judge's mark; 0 without a judge, or if its answer is off format."""
        if not self.synthesis.spec.min_mark or not self.has_judge:
            return 0
        prompt = (
            candidate.row.prompt
            if candidate.request.task.shows_passage
            else f"{candidate.row.prompt}\n\n{candidate.source}"
        )
        messages = judge_messages(self.instruction, prompt.strip(), candidate.row.completion)
        number, documents = candidate.request.number, candidate.request.document_ids
        question = TeacherQuestion(
            number, f"judge:{at}", ModelRole.JUDGE, messages, JUDGE_TOKENS, 0.0, mark_schema(), documents
        )
        return parse_mark(self.asker.ask(question).text)


@cache
def _chrf() -> CHRF:
    return CHRF()


def score_translation(text: str, reference: str) -> float:
    """The similarity, 0 to 100, of a text and what it should be: chrF2 (Popović 2015)."""
    return float(_chrf().sentence_score(text, [reference]).score)


def _refusal(candidate: Candidate, reason: Refusal) -> SynthesisSample:
    return SynthesisSample(candidate.row.row_id, candidate.row, SampleState.REFUSED, candidate.request.number, reason)


def _name_by_place(sample: SynthesisSample, at: int) -> SynthesisSample:
    """A refused row may equal an accepted one, so it has the id of its place."""
    return replace(sample, row_id=f"refused_{sample.number}_{at}") if sample.state is SampleState.REFUSED else sample


def _unreadable(request: TeacherRequest, answer: StoredAnswer) -> SynthesisSample:
    """The record of an answer without rows."""
    reason = Refusal.TEACHER_REFUSED if answer.is_refused else Refusal.OFF_FORMAT
    row = Row(request.task.name, request.document_ids, (), f"teacher:{answer.model}", language=request.language)
    return SynthesisSample(f"refused_{request.number}_0", row, SampleState.REFUSED, request.number, reason)
