"""One function per command of SynthesisService."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from services.synthetic.adapters.commented_drafts import SqlCommentedDrafts
from services.synthetic.adapters.seed_documents import SqlSeedDocuments
from services.synthetic.adapters.syntheses import SqlSyntheses
from services.synthetic.domain import CRITIQUE, Specialist, text_id
from services.synthetic.ports import AnonymizeRow, ChatModel
from services.synthetic.synthesis.plan import MAX_COMBINATIONS, count_combinations
from services.synthetic.synthesis.tasks import NAMED, PROMPT_VERSION, FactSource, find_tasks
from services.synthetic.synthesis_domain import (
    DEFAULT_SEEDS,
    ModelRole,
    MonthOfCritiques,
    SampleState,
    SeedExample,
    Synthesis,
    SynthesisSpec,
    SynthesisState,
    TokenPrice,
)
from tailor.errors import Aborted, FailedPrecondition, InvalidArgument, NotFound, Reason, TailorError
from tailor.jobs import HeldJob
from tailor.logging import get_logger

log = get_logger(__name__)

BUILT_IN = (*NAMED, CRITIQUE)
# Comments wait for minutes.
CRITIQUE_SECONDS = 10.0
# Comments of one synthesis.
MAX_COMMENTS = 1_000
MAX_TARGET = 100_000
MAX_SEEDS = 10_000
MAX_EXAMPLES = 1_000
MAX_TEXT = 20_000
MAX_WORD = 200
MAX_ANSWER_TOKENS = 16_000
# Of critiques that start by themselves: a revision is as long as its draft, with few changes.
CRITIQUE_ANSWER_TOKENS = 4_000
CRITIQUE_TEMPERATURE = 0.2
NOT_FOR_CRITIQUES = ("document_ids", "seeds", "examples", "attributes", "personas", "languages", "min_mark")
# A new process may have a new key.
WAKING_REASONS = (Reason.TEACHER_KEY_REFUSED, Reason.TEACHER_UNKNOWN_MODEL)


@dataclass(frozen=True)
class CritiqueWaits:
    """When critiques start by themselves: after a quiet time, and at the latest when the oldest comment has waited.

    There is a quiet time between two of them too.

    An expert may take a judgement back for 15 minutes, and nothing is paid for a comment that may still go.
    """

    quiet_seconds: float = 900.0
    max_seconds: float = 3_600.0

    def are_over(self, oldest: float, newest: float) -> bool:
        """True if comments of these ages, in seconds, have waited long enough."""
        return newest >= self.quiet_seconds or oldest >= self.max_seconds


def tokens_left(specialist: Specialist, month: MonthOfCritiques) -> int:
    """The tokens that critiques which start by themselves may still take in this month; 0 if another request would not fit."""
    left = max(0, specialist.rows.critique_tokens_per_month - month.tokens)
    return 0 if month.left_over is not None and left <= month.left_over else left


@dataclass(frozen=True)
class SynthesisCommands:
    """The collaborators. `teacher` and `judge` are None if none is configured; `prices` are the installation's, if it has any."""

    syntheses: SqlSyntheses
    documents: SqlSeedDocuments
    anonymize: AnonymizeRow
    teacher: ChatModel | None
    judge: ChatModel | None
    prices: Mapping[ModelRole, TokenPrice]
    comments: SqlCommentedDrafts
    waits: CritiqueWaits = field(default_factory=CritiqueWaits)

    def create(self, spec: SynthesisSpec, specialist: Specialist, request_id: str) -> Synthesis:
        """Queue a synthesis; its seeds or comments are chosen and its examples anonymised now. Blocks. Idempotent by request id."""
        if request_id and (known := self.syntheses.find_by_request(request_id)) is not None:
            if not _is_same(known.spec, spec):
                raise InvalidArgument(
                    Reason.REQUEST_ID_REUSED, "This request id was already used for another synthesis. Use a new one."
                )
            return known
        check_spec(spec, specialist)
        if spec.task == CRITIQUE:
            with self.comments.starting(specialist.name) as is_held:
                if not is_held:
                    raise Aborted(Reason.ABORTED, "Another synthesis of these comments is being created. Retry.")
                return self._create_critiques(spec, specialist, request_id)
        teacher, judge = self._models(spec, specialist)
        synthesis_id = f"syn_{uuid.uuid4().hex}"
        spec = self._with_prices(spec)
        spec = replace(
            spec,
            document_ids=self._choose_seeds(spec, specialist, synthesis_id),
            examples=tuple(
                self._anonymize(example, text_id("example", synthesis_id, number), specialist)
                for number, example in enumerate(spec.examples)
            ),
        )
        synthesis = Synthesis(synthesis_id, spec, teacher, judge, PROMPT_VERSION)
        return self.syntheses.create(synthesis, request_id)

    def run_critiques(self, specialists: Mapping[str, Specialist], job: HeldJob) -> None:
        """Start the critiques that are due (a `jobs.Handle`)."""
        for specialist in list(specialists.values()):
            try:
                synthesis = self.start_critiques(specialist)
            except TailorError as error:
                log.warning("critiques not started", specialist=specialist.name, reason=error.reason)
                continue
            if synthesis is not None:
                comments = synthesis.spec.target
                log.info("critiques started", synthesis_id=synthesis.synthesis_id, comments=comments)

    def start_critiques(self, specialist: Specialist) -> Synthesis | None:
        """Queue a synthesis of the comments that have waited long enough, within the specialist's tokens of this month. Blocks.

        None if nothing is due. At most one runs at a time.
        """
        if not (specialist.use_teacher and specialist.rows.critique_tokens_per_month and self.teacher):
            return None
        ages = self.comments.ages(specialist)
        if ages is None or not self.waits.are_over(*ages):
            return None
        with self.comments.starting(specialist.name) as is_held:
            if not is_held or self.comments.count(specialist).running:
                return None
            month = self.comments.month(specialist.name)
            budget = tokens_left(specialist, month)
            if not budget or (month.newest_age is not None and month.newest_age < self.waits.quiet_seconds):
                return None
            spec = SynthesisSpec(
                specialist.name,
                CRITIQUE,
                MAX_COMMENTS,
                budget_tokens=budget,
                max_answer_tokens=CRITIQUE_ANSWER_TOKENS,
                temperature=CRITIQUE_TEMPERATURE,
            )
            return self._create_critiques(spec, specialist, "")

    def _create_critiques(self, spec: SynthesisSpec, specialist: Specialist, request_id: str) -> Synthesis:
        """Queue a synthesis of the comments that wait. The caller holds the lock, so that no other one gets the same comments."""
        teacher, judge = self._models(spec, specialist)
        spec = self._choose_comments(self._with_prices(spec), specialist)
        synthesis = Synthesis(f"syn_{uuid.uuid4().hex}", spec, teacher, judge, PROMPT_VERSION)
        return self.syntheses.create(synthesis, request_id)

    def get(self, synthesis_id: str) -> Synthesis:
        """Raises NotFound (UNKNOWN_SYNTHESIS)."""
        synthesis = self.syntheses.get(synthesis_id)
        if synthesis is None:
            raise NotFound(Reason.UNKNOWN_SYNTHESIS, "There is no such synthesis.")
        return synthesis

    def cancel(self, synthesis_id: str) -> Synthesis:
        """End a synthesis; requests that run are still paid for. Raises FailedPrecondition (SYNTHESIS_ENDED)."""
        self._change(synthesis_id, SynthesisState.CANCELLED, "Cancelled; its rows stay.")
        return self.get(synthesis_id)

    def resume(self, synthesis_id: str) -> Synthesis:
        """Continue a paused synthesis at once. Raises FailedPrecondition (SYNTHESIS_ENDED)."""
        if self.get(synthesis_id).state not in (SynthesisState.QUEUED, SynthesisState.RUNNING):
            self._change(synthesis_id, SynthesisState.QUEUED, "")
        return self.get(synthesis_id)

    def review(self, synthesis_id: str, decisions: Mapping[str, bool], reviewer: str) -> Synthesis:
        """Record an expert's decisions by row id, True to accept, all or none."""
        states = {key: SampleState.ACCEPTED if accept else SampleState.REJECTED for key, accept in decisions.items()}
        self.syntheses.review(synthesis_id, states, reviewer)
        return self.get(synthesis_id)

    def _change(self, synthesis_id: str, state: SynthesisState, message: str) -> None:
        reason = Reason.CANCELLED if state is SynthesisState.CANCELLED else ""
        if not self.syntheses.change(synthesis_id, state, reason, message):
            raise FailedPrecondition(Reason.SYNTHESIS_ENDED, "The synthesis has already ended. Create a new one.")

    def _models(self, spec: SynthesisSpec, specialist: Specialist) -> tuple[str, str]:
        """The names of teacher and judge, the latter empty if none is used."""
        if not specialist.use_teacher:
            raise FailedPrecondition(
                Reason.TEACHER_NOT_ALLOWED,
                "The specialist's definition does not allow a teacher. Set `use_teacher = true` and update it.",
            )
        if self.teacher is None:
            raise FailedPrecondition(
                Reason.NO_TEACHER,
                "No teacher is configured. Set TAILOR_TEACHER_BASE_URL and TAILOR_TEACHER_MODEL for synthetic.",
            )
        if spec.min_mark and self.judge is None:
            raise FailedPrecondition(
                Reason.NO_JUDGE,
                "A min mark needs a judge. Set TAILOR_JUDGE_BASE_URL and TAILOR_JUDGE_MODEL for synthetic, or leave out the mark.",
            )
        return self.teacher.model, self.judge.model if self.judge and self._uses_judge(spec) else ""

    def _uses_judge(self, spec: SynthesisSpec) -> bool:
        """True if a mark is wanted, or for the verdict on a revision, which the teacher gives if there is no judge."""
        return bool(spec.min_mark) or (spec.task == CRITIQUE and self.judge is not None)

    def _with_prices(self, spec: SynthesisSpec) -> SynthesisSpec:
        spec = replace(
            spec,
            teacher_price=spec.teacher_price or self.prices.get(ModelRole.TEACHER),
            judge_price=spec.judge_price or self.prices.get(ModelRole.JUDGE),
        )
        roles = (ModelRole.TEACHER, ModelRole.JUDGE) if self._uses_judge(spec) else (ModelRole.TEACHER,)
        missing = [role.value for role in roles if spec.price(role) is None]
        if spec.budget_eur and missing:
            raise FailedPrecondition(
                Reason.NO_PRICE,
                f"A budget in EUR needs the price of the {' and the '.join(missing)}. Give it with the request, set "
                "TAILOR_TEACHER_PRICE_INPUT and the like for synthetic, or use a budget in tokens.",
            )
        return spec

    def _choose_comments(self, spec: SynthesisSpec, specialist: Specialist) -> SynthesisSpec:
        """The spec with the comments that it answers, and their number as the target. Raises FailedPrecondition (NO_COMMENTS)."""
        chosen = self.comments.choose(specialist, min(spec.target, MAX_COMMENTS))
        if not chosen:
            counts = self.comments.count(specialist)
            raise FailedPrecondition(
                Reason.NO_COMMENTS,
                f"No comment waits for a revision. Of {counts.total} comments, {counts.total - counts.held_out - counts.without_texts} are "
                f"answered or being answered, {counts.held_out} are on held-out prompts, and {counts.without_texts} on drafts without "
                "stored texts. Have experts comment on drafts while the specialist's `keep_drafts` is on.",
            )
        return replace(spec, judgement_ids=tuple(chosen), target=len(chosen))

    def _choose_seeds(self, spec: SynthesisSpec, specialist: Specialist, key: str) -> tuple[str, ...]:
        """The named documents, or some that are drawn. Tasks with a source need documents; others may have only examples."""
        if spec.document_ids:
            self._check_seeds(spec.document_ids, specialist)
            return spec.document_ids
        needs_passages = any(task.source is FactSource.PASSAGE for task in find_tasks(spec.task))
        count = spec.seeds or (DEFAULT_SEEDS if needs_passages or not spec.examples else 0)
        document_ids = self.documents.draw(specialist, count, key) if count else []
        if count and not document_ids:
            raise FailedPrecondition(
                Reason.NO_SEEDS, "The specialist has no documents that may be seeds. Publish some, or give examples."
            )
        return tuple(document_ids)

    def _check_seeds(self, document_ids: Sequence[str], specialist: Specialist) -> None:
        known = {document.document_id for document in self.documents.find(specialist, document_ids)}
        unknown = [key for key in document_ids if key not in known]
        if unknown:
            raise NotFound(
                Reason.UNKNOWN_DOCUMENT, f"The specialist does not select a document with the id {unknown[0]}."
            )
        held_out = sorted(self.documents.held_out(specialist, document_ids))
        if held_out:
            raise InvalidArgument(
                Reason.SEED_HELD_OUT, f"{held_out[0]} is held out for evaluation, so it cannot be a seed. Leave it out."
            )

    def _anonymize(self, example: SeedExample, key: str, specialist: Specialist) -> SeedExample:
        clean = self.anonymize(key, (example.prompt, example.answer), specialist.selection.common_labels)
        prompt, answer = clean.texts
        return SeedExample(prompt, answer, key if clean.surrogates else "")


def _is_same(known: SynthesisSpec, spec: SynthesisSpec) -> bool:
    """True if a repeated request asks for what it asked before. The target of a critique is the number of comments that waited."""
    is_same_target = known.target == spec.target or spec.task == CRITIQUE
    return is_same_target and (known.specialist, known.task) == (spec.specialist, spec.task)


def check_spec(spec: SynthesisSpec, specialist: Specialist) -> None:
    """Raises InvalidArgument (INVALID_SYNTHESIS) with a violation per wrong field."""
    own_tasks = {task.name for task in specialist.rows.own_tasks}
    rules = {
        "task": (bool(spec.task) and len(spec.task) <= MAX_WORD, "must be a name"),
        "instruction": (
            spec.task in BUILT_IN or spec.task in own_tasks or bool(spec.instruction.strip()),
            f"must say what `{spec.task}` is, because it is neither {', '.join(sorted(BUILT_IN))} nor a task of the specialist's own",
        ),
        "target": (1 <= spec.target <= MAX_TARGET, f"must be 1 to {MAX_TARGET:,}"),
        "seeds": (0 <= spec.seeds <= MAX_SEEDS, f"must be 0 to {MAX_SEEDS:,}"),
        "document_ids": (len(spec.document_ids) <= MAX_SEEDS, f"must be at most {MAX_SEEDS:,}"),
        "examples": (
            _are_examples(spec.examples),
            f"must have a prompt and an answer each, and be at most {MAX_EXAMPLES:,}",
        ),
        "attributes": (
            all(attribute.name and attribute.values for attribute in spec.attributes),
            "must have a name and at least one value each",
        ),
        "grid": (count_combinations(spec) <= MAX_COMBINATIONS, f"must have at most {MAX_COMBINATIONS:,} combinations"),
        "languages": (
            spec.task != "translation" or bool(spec.languages),
            "must name the target languages of a translation",
        ),
        "budget": (
            spec.budget_tokens >= 0 and spec.budget_eur >= 0 and spec.budget_tokens + spec.budget_eur > 0,
            "must be set, in tokens, in EUR, or both",
        ),
        "min_mark": (0 <= spec.min_mark <= 5, "must be 0 to 5"),
        "min_back_translation": (0 <= spec.min_back_translation <= 100, "must be 0 to 100"),
        "max_answer_tokens": (
            16 <= spec.max_answer_tokens <= MAX_ANSWER_TOKENS,
            f"must be 16 to {MAX_ANSWER_TOKENS:,}",
        ),
        "temperature": (0 <= spec.temperature <= 2, "must be 0 to 2"),
        "price": (_are_prices(spec), "must not be negative"),
    }
    violations = {name: problem for name, (is_met, problem) in rules.items() if not is_met}
    if spec.task == CRITIQUE:
        given = (name for name in NOT_FOR_CRITIQUES if getattr(spec, name))
        violations |= dict.fromkeys(given, "must be empty for critiques, which are made from comments")
    if len(spec.instruction) > MAX_TEXT:
        violations["instruction"] = f"must have at most {MAX_TEXT:,} characters"
    if violations:
        raise InvalidArgument(Reason.INVALID_SYNTHESIS, "The synthesis is invalid.", field_violations=violations)


def _are_examples(examples: Sequence[SeedExample]) -> bool:
    return len(examples) <= MAX_EXAMPLES and all(
        0 < len(text.strip()) <= MAX_TEXT for example in examples for text in (example.prompt, example.answer)
    )


def _are_prices(spec: SynthesisSpec) -> bool:
    prices = filter(None, (spec.teacher_price, spec.judge_price))
    return all(price.input >= 0 and price.output >= 0 for price in prices)
