"""Runs syntheses: several requests at a time, every answer stored before use, so that any replica can go on where another was killed."""

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from services.synthetic.adapters.commented_drafts import SqlCommentedDrafts
from services.synthetic.adapters.seed_documents import SqlSeedDocuments
from services.synthetic.adapters.syntheses import SqlSyntheses
from services.synthetic.datasets import read_text
from services.synthetic.domain import CRITIQUE, Document, Passage, Specialist
from services.synthetic.ports import ChatModel, SynthesisWork, Tokenizers
from services.synthetic.rows.passages import short_passages
from services.synthetic.synthesis.checks import HeldOutTexts, RowChecks
from services.synthetic.synthesis.plan import Seed, SynthesisPlan
from services.synthetic.synthesis.prompts import MAX_PASSAGE
from services.synthetic.synthesis.questions import Asker, AskLimits
from services.synthetic.synthesis.revisions import RevisionChecks, RevisionMaker
from services.synthetic.synthesis.rows import SynthesisRowMaker
from services.synthetic.synthesis_domain import ModelRole, SampleState, Synthesis, SynthesisSpec
from tailor.errors import Reason, TailorError
from tailor.jobs import HeldJob
from tailor.logging import get_logger
from tailor.retry import Stopped
from tailor.storage.protocol import ObjectStore

log = get_logger(__name__)

# Passages of fewer words say too little to ask about.
MIN_PASSAGE_WORDS = 20
REMEDIES = {
    Reason.TEACHER_KEY_REFUSED: "Set a valid key and restart synthetic, or resume.",
    Reason.TEACHER_QUOTA: "Raise the limit at the provider; the synthesis then resumes by itself.",
    Reason.TEACHER_UNKNOWN_MODEL: "Set TAILOR_TEACHER_MODEL or TAILOR_JUDGE_MODEL to a model that the endpoint has, and restart synthetic.",
}


@dataclass(frozen=True)
class RunLimits:
    """Requests at a time per synthesis, and seconds of a pause."""

    parallel: int = 4
    retries: AskLimits = field(default_factory=AskLimits)
    pause_seconds: float = 300.0


@dataclass(frozen=True)
class SynthesisRunner:
    """Runs syntheses. `judge` is None if none is configured."""

    syntheses: SqlSyntheses
    teacher: ChatModel
    judge: ChatModel | None
    documents: SqlSeedDocuments
    comments: SqlCommentedDrafts
    find_specialist: Callable[[str], Specialist | None]
    tokenizers: Tokenizers
    limits: RunLimits = field(default_factory=RunLimits)

    def run(self, job: HeldJob) -> float | None:
        """Run the job's synthesis until it ends or pauses (a `jobs.Handle`). Blocks."""
        synthesis = self.syntheses.begin(job)
        if synthesis is None:
            return None
        try:
            reason, message = self._make(job, synthesis)
        except TailorError as error:
            return self._pause(job, error)
        self.syntheses.finish(job, reason, message)
        log.info("synthesis ended", synthesis_id=job.key, reason=reason)
        return None

    def _make(self, job: HeldJob, synthesis: Synthesis) -> tuple[Reason, str]:
        """Make the rows, as far as possible; why the synthesis then ends, and a sentence. Raises what pauses it."""
        specialist = self.find_specialist(synthesis.spec.specialist)
        if specialist is None or not specialist.use_teacher:
            gone = "The specialist is gone, or its definition no longer allows a teacher."
            return Reason.TEACHER_NOT_ALLOWED, gone
        models = {ModelRole.TEACHER: self.teacher} | ({ModelRole.JUDGE: self.judge} if self.judge else {})
        asker = Asker(self.syntheses, job, models, self.limits.retries)
        is_critique = synthesis.spec.task == CRITIQUE
        work = (self._revisions if is_critique else self._rows)(synthesis, specialist, asker)
        if work.numbers:
            return _Session(self.syntheses, job, synthesis, work, self.limits.parallel).run()
        seeds = "comments can be answered any more" if is_critique else "seeds exists any more"
        return Reason.NO_SEEDS, f"None of the {seeds}."

    def _rows(self, synthesis: Synthesis, specialist: Specialist, asker: Asker) -> SynthesisWork:
        seeds = read_seeds(self.documents, synthesis.spec, specialist)
        plan = SynthesisPlan(synthesis.synthesis_id, synthesis.spec, seeds)
        checks, has_judge = self._checks(specialist), self.judge is not None
        return SynthesisRowMaker(synthesis, plan, specialist, asker, checks, has_judge=has_judge)

    def _revisions(self, synthesis: Synthesis, specialist: Specialist, asker: Asker) -> SynthesisWork:
        held_out = HeldOutTexts(self.documents.held_out_answers(specialist))
        checks = RevisionChecks(specialist, self.tokenizers.for_base(specialist.base), held_out)
        drafts = self.comments.read(specialist, synthesis.spec.judgement_ids)
        return RevisionMaker(synthesis, asker, checks, drafts)

    def _checks(self, specialist: Specialist) -> RowChecks:
        """The checks, which know every row of the specialist's syntheses and the held-out rows."""
        held_out = HeldOutTexts(self.documents.held_out_answers(specialist))
        checks = RowChecks(specialist, self.tokenizers.for_base(specialist.base), held_out)
        for sample in self.syntheses.list_rows(specialist.name):
            checks.add(sample.row)
        return checks

    def _pause(self, job: HeldJob, error: TailorError) -> float:
        remedy, seconds = REMEDIES.get(error.reason, "It resumes by itself."), self.limits.pause_seconds
        self.syntheses.pause(job, error.reason, f"{error.message} {remedy}", seconds)
        log.warning("synthesis paused", synthesis_id=job.key, reason=error.reason)
        return seconds


def read_seeds(documents: SqlSeedDocuments, spec: SynthesisSpec, specialist: Specialist) -> list[Seed]:
    """All seeds that still exist and are not held out: passages of documents, and examples. Blocks."""
    examples = [
        Seed(f"example:{number}", example.answer, example.prompt, example.document_id)
        for number, example in enumerate(spec.examples, start=1)
        if example.prompt
    ]
    held_out = documents.held_out(specialist, spec.document_ids)
    known = documents.find(specialist, spec.document_ids)
    free = [document for document in known if document.document_id not in held_out]
    return examples + [seed for document in free for seed in _read_passages(documents.store, document)]


def _read_passages(store: ObjectStore, document: Document) -> Iterator[Seed]:
    text = read_text(store, document)
    for passage in short_passages(document, text, MAX_PASSAGE) if text is not None else ():
        if len(passage.text.split()) >= MIN_PASSAGE_WORDS:
            yield _to_seed(document, passage)


def _to_seed(document: Document, passage: Passage) -> Seed:
    return Seed(
        key=f"{document.document_id}:{passage.start}-{passage.end}",
        text=passage.text.strip(),
        document_id=document.document_id,
        language=document.language,
        heading=passage.heading,
        place=(passage.start, passage.end),
        spans=tuple(span for span in document.spans if span.start < passage.end and passage.start < span.end),
    )


@dataclass
class _Session:
    """One run of a synthesis by one holder of its job."""

    syntheses: SqlSyntheses
    job: HeldJob
    synthesis: Synthesis
    work: SynthesisWork
    parallel: int

    def run(self) -> tuple[Reason, str]:
        """Ask until the target, a budget or the end of the plan is reached; which of them, and a sentence. Raises what pauses it."""
        target = self.synthesis.spec.target
        self.work.room = target - sum(
            self.synthesis.samples.get(state, 0) for state in (SampleState.ACCEPTED, SampleState.PENDING)
        )
        failure = self._ask_all()
        if failure is not None and failure.reason != Reason.BUDGET_SPENT:
            raise failure
        if self.job.stop.is_set():
            raise Stopped
        if self.work.room <= 0:
            return Reason.TARGET_REACHED, f"All {target} rows are made."
        if failure is not None:
            return Reason.BUDGET_SPENT, failure.message
        return Reason.TARGET_NOT_REACHED, self.work.exhausted

    def _ask_all(self) -> TailorError | None:
        """Ask until there is nothing more to ask, and return the first failure."""
        known, wanted = self.syntheses.numbers(self.synthesis.synthesis_id), self.work.numbers
        waiting = iter(
            [
                *(number for number in sorted(known) if not known[number] and number in wanted),
                *(number for number in wanted if number not in known),
            ]
        )
        running: dict[Future[None], int] = {}
        failure: TailorError | None = None
        with ThreadPoolExecutor(self.parallel, thread_name_prefix="synthesis") as pool:
            while True:
                while failure is None and self._has_room(running) and (number := next(waiting, None)) is not None:
                    running[pool.submit(self.work.make, number)] = self.work.rows(number)
                if not running:
                    return failure
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    del running[future]
                    failure = _first_failure(failure, future)

    def _has_room(self, running: dict[Future[None], int]) -> bool:
        """True if another request is wanted, even if all running ones give their rows."""
        return not self.job.stop.is_set() and len(running) < self.parallel and sum(running.values()) < self.work.room


def _first_failure(failure: TailorError | None, future: "Future[None]") -> TailorError | None:
    """The failure that counts: one that pauses rather than an empty budget. Any other exception is raised."""
    try:
        future.result()
    except TailorError as error:
        return error if failure is None or failure.reason == Reason.BUDGET_SPENT else failure
    return failure
