"""Whether a history lost, doubled or falsified anything, or left anything stuck: what was sent against what is found afterwards.

Nothing is read here and nothing is assumed of a service: `chaos_load` writes down what was sent, `chaos_found` what a client finds.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import chain

ERASED = "ERASED"
MALFORMED = "MALFORMED"


@dataclass
class SentDocument:
    """What was published under one id of the publisher. `marker` is a word that occurs in no other document.

    `sent` counts records with content that left the publisher, and `acknowledged` those that the broker confirmed and has not forgotten.
    A withdrawn document is published once more at the end, which must be rejected: that shows its opaque id.
    """

    external_id: str
    marker: str
    sent: int = 0
    acknowledged: int = 0
    withdrawn: bool = False


@dataclass(frozen=True)
class SentRanking:
    """A ranking that was confirmed, and the ids that the registry gave it: one, however often it was sent."""

    request_id: str
    judgement_ids: frozenset[str]
    draft_ids: tuple[str, ...]


@dataclass(frozen=True)
class ChaosCall:
    """One call and its answer. `error` is a typed error's code and reason; `fault` says why an answer or an error cannot be right.

    Calls with the same `question` and adapter take the likeliest tokens, so their answers are equal.
    """

    question: str
    answer: str = ""
    error: str = ""
    fault: str = ""
    draft_id: str = ""
    specialist: str = ""
    generation: int = 0
    adapter: str = ""


@dataclass
class History:
    """What was sent. `unfinished` names commands that were never confirmed, although they were repeated."""

    documents: dict[str, SentDocument] = field(default_factory=dict)
    rankings: list[SentRanking] = field(default_factory=list)
    calls: list[ChaosCall] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class FoundSubmission:
    """One submission as its publisher finds it; `rejected` is the reason, or empty."""

    submission_id: str
    document_id: str
    rejected: str = ""


@dataclass(frozen=True)
class FoundErasure:
    """An erasure. It has a receipt when it waits for nobody."""

    erasure_id: str
    document_ids: tuple[str, ...]
    waiting_for: tuple[str, ...] = ()
    has_receipt: bool = True


@dataclass(frozen=True)
class FoundRun:
    """A run; `has_ended` with an adapter or with a reason. `key` is what it trains: there is one run of it."""

    run_id: str
    key: str
    has_ended: bool
    adapter: str = ""
    reason: str = ""


@dataclass(frozen=True)
class DraftFact:
    """What the log says of a draft."""

    specialist: str
    generation: int
    adapter: str
    answer_digest: str


@dataclass
class Found:
    """The state after a history. The facts of the log are sets, because a fact may be published again: two different facts are a fault."""

    submissions: Mapping[str, Sequence[FoundSubmission]] = field(default_factory=dict)
    passed: Mapping[str, Set[str]] = field(default_factory=dict)
    rejected: Mapping[str, Set[str]] = field(default_factory=dict)
    catalogue: Sequence[str] = ()
    counted_passed: int = 0
    counted_rejected: int = 0
    held: Set[str] = frozenset()
    erasures: Sequence[FoundErasure] = ()
    judgements: Mapping[str, Set[tuple[str, ...]]] = field(default_factory=dict)
    pairs: int = 0
    runs: Sequence[FoundRun] = ()
    trained: Mapping[str, Set[str]] = field(default_factory=dict)
    adapters: Sequence[str] = ()
    not_evaluated: Sequence[str] = ()
    serving: Mapping[tuple[str, int], Set[str]] = field(default_factory=dict)
    drafts: Mapping[str, Set[DraftFact]] = field(default_factory=dict)
    traced: Set[str] = frozenset()
    dead_letters: Sequence[str] = ()
    not_ready: Sequence[str] = ()


@dataclass
class ChaosVerdict:
    """A sentence for every fault. An effect that happened twice counts as `twice`, an event that was only handled twice does not."""

    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    wrong_answers: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """True if there is no fault."""
        return not (self.lost or self.twice or self.wrong_answers or self.stuck)


def check(history: History, end: Found) -> ChaosVerdict:
    """Compare what was sent with what is found."""
    verdict = ChaosVerdict()
    erased = _check_erasures(end, verdict)
    for document in history.documents.values():
        if document.withdrawn:
            _check_withdrawn(document, end, erased, verdict)
        else:
            _check_document(document, end, verdict)
    _check_outcomes(end, erased, verdict)
    _check_rankings(history, end, verdict)
    _check_runs(end, verdict)
    _check_calls(history, end, verdict)
    verdict.lost += [f"{event} is a dead letter" for event in end.dead_letters]
    verdict.stuck += [f"{name} is not ready" for name in end.not_ready]
    verdict.stuck += [f"{command} was never confirmed" for command in history.unfinished]
    return verdict


def _check_document(document: SentDocument, end: Found, verdict: ChaosVerdict) -> None:
    """Every record is one submission, and every submission passed or was rejected, once."""
    name, submissions = document.external_id, end.submissions.get(document.external_id, ())
    if len(submissions) < document.acknowledged:
        verdict.lost.append(f"{name}: {document.acknowledged} acknowledged, {len(submissions)} submissions")
    if len(submissions) > document.sent:
        verdict.twice.append(f"{name}: {document.sent} sent, {len(submissions)} submissions")
    for item in submissions:
        if item.submission_id not in end.passed and item.submission_id not in end.rejected:
            verdict.lost.append(f"{name}: {item.submission_id} neither passed nor was rejected")
    ids = {item.document_id for item in submissions if item.rejected != MALFORMED}
    if len(ids) > 1:
        verdict.twice.append(f"{name} became {len(ids)} documents")
    if any(item.submission_id in end.passed for item in submissions):
        listed = sum(end.catalogue.count(document_id) for document_id in ids)
        if listed == 0:
            verdict.lost.append(f"{name} passed and is not in the catalogue")
        elif listed > 1:
            verdict.twice.append(f"{name} is {listed} times in the catalogue")
        if document.marker not in end.held:
            verdict.lost.append(f"{name} passed and its text is in no store")


def _check_withdrawn(document: SentDocument, end: Found, erased: Mapping[str, int], verdict: ChaosVerdict) -> None:
    """A tombstone erased the document once, nothing of it is left, and it does not come back."""
    name, submissions = document.external_id, end.submissions.get(document.external_id, ())
    if document.marker in end.held:
        verdict.lost.append(f"the erasure of {name}: a store still has its text")
    ids = {item.document_id for item in submissions if item.rejected == ERASED}
    if not ids:
        reasons = sorted({item.rejected or "accepted" for item in submissions})
        verdict.lost.append(f"the erasure of {name}: when published again it was {', '.join(reasons) or 'unknown'}")
    for document_id in ids:
        if document_id in end.catalogue:
            verdict.lost.append(f"the erasure of {name}: it is in the catalogue")
        if erased.get(document_id, 0) != 1:
            fault = f"{name} was erased {erased.get(document_id, 0)} times"
            (verdict.twice if document_id in erased else verdict.lost).append(fault)


def _check_erasures(end: Found, verdict: ChaosVerdict) -> Mapping[str, int]:
    """How often each document was erased. An erasure ends with a receipt."""
    for erasure in end.erasures:
        if not erasure.has_receipt:
            verdict.stuck.append(f"{erasure.erasure_id} waits for {', '.join(erasure.waiting_for) or 'its receipt'}")
    return Counter(chain.from_iterable(erasure.document_ids for erasure in end.erasures))


def _check_outcomes(end: Found, erased: Mapping[str, int], verdict: ChaosVerdict) -> None:
    """One outcome per submission in the log, and as many in the registry's counts; those of erased documents may be counted as erased."""
    for submission_id in end.passed.keys() | end.rejected.keys():
        outcomes = [*end.passed.get(submission_id, ()), *end.rejected.get(submission_id, ())]
        if len(outcomes) > 1:
            verdict.twice.append(f"{submission_id} has {len(outcomes)} outcomes: {', '.join(sorted(outcomes))}")
    for what, counted, outcomes_of in (
        ("passed", end.counted_passed, end.passed),
        ("rejected", end.counted_rejected, end.rejected),
    ):
        most = len(outcomes_of)
        least = sum(not any(_document_of(item) in erased for item in items) for items in outcomes_of.values())
        if counted < least:
            verdict.lost.append(f"{least - counted} of {least} submissions that {what} are not counted by the registry")
        if counted > most:
            verdict.twice.append(f"{counted} submissions {what} by the registry's count, {most} by the log")


def _document_of(outcome: str) -> str:
    return outcome.partition(" ")[0]


def _check_rankings(history: History, end: Found, verdict: ChaosVerdict) -> None:
    """One judgement per ranking, in the answer and in the log, and one pair of its two drafts, whose texts differ and were stored."""
    expected: set[str] = set()
    for ranking in history.rankings:
        expected |= ranking.judgement_ids
        if len(ranking.judgement_ids) > 1:
            verdict.twice.append(f"{ranking.request_id} became {len(ranking.judgement_ids)} judgements")
        for judgement_id in ranking.judgement_ids - end.judgements.keys():
            verdict.lost.append(f"{judgement_id} is not in the log")
    for judgement_id, rankings in end.judgements.items():
        if judgement_id not in expected or len(rankings) > 1:
            verdict.twice.append(f"{judgement_id}: {len(rankings)} rankings in the log that nobody sent so")
    difference = len(history.rankings) - end.pairs
    if difference > 0:
        verdict.lost.append(f"{difference} of {len(history.rankings)} rankings gave no pair")
    if difference < 0:
        verdict.twice.append(f"{end.pairs} pairs of {len(history.rankings)} rankings")


def _check_runs(end: Found, verdict: ChaosVerdict) -> None:
    """One run of one thing to train; it ends with one adapter, which is evaluated, or with a reason. One adapter per generation."""
    for key, count in Counter(run.key for run in end.runs).items():
        if count > 1:
            verdict.twice.append(f"{count} runs of {key}")
    for run in end.runs:
        if not run.has_ended:
            verdict.stuck.append(f"{run.run_id} has not ended: {run.reason or 'no reason'}")
        elif not (run.adapter or run.reason):
            verdict.lost.append(f"{run.run_id} ended with neither adapter nor reason")
        elif run.adapter and run.adapter not in end.adapters:
            verdict.lost.append(f"{run.run_id}: its adapter is not in the catalogue")
    for stage, adapters in end.trained.items():
        if len(adapters) > 1:
            verdict.twice.append(f"{stage} made {len(adapters)} adapters")
    for digest, count in Counter(end.adapters).items():
        if count > 1:
            verdict.twice.append(f"adapter {digest[:12]} is {count} times in the catalogue")
    for (specialist, generation), digests in end.serving.items():
        if len(digests) > 1:
            verdict.twice.append(f"generation {generation} of {specialist} is {len(digests)} adapters")
    verdict.stuck += [f"adapter {digest[:12]} is not evaluated" for digest in end.not_evaluated]


def _check_calls(history: History, end: Found, verdict: ChaosVerdict) -> None:
    """Answers are right, as far as a caller can tell; a draft is known once, with the model that the answer named."""
    verdict.wrong_answers += [f"{call.question}: {call.fault}" for call in history.calls if call.fault]
    verdict.wrong_answers += _find_different_answers(history.calls)
    for call in history.calls:
        if not call.draft_id:
            continue
        facts = end.drafts.get(call.draft_id, frozenset())
        if not facts or call.draft_id not in end.traced:
            verdict.lost.append(f"{call.draft_id} is not in the {'catalogue' if facts else 'log'}")
        if len(facts) > 1:
            verdict.twice.append(f"{call.draft_id}: {len(facts)} different facts in the log")
        named = (call.specialist, call.generation, call.adapter)
        if any((fact.specialist, fact.generation, fact.adapter) != named for fact in facts):
            verdict.wrong_answers.append(f"{call.draft_id}: the log names another model than the answer")
        if call.specialist and call.adapter not in end.serving.get((call.specialist, call.generation), ()):
            verdict.wrong_answers.append(f"{call.draft_id}: generation {call.generation} was never its adapter")


def _find_different_answers(calls: Sequence[ChaosCall]) -> Iterator[str]:
    answers: dict[tuple[str, str], set[str]] = defaultdict(set)
    for call in calls:
        if call.answer:
            answers[call.question, call.adapter].add(call.answer)
    for (question, adapter), different in answers.items():
        if len(different) > 1:
            yield f"{question}: {len(different)} different answers of {adapter[:12] or 'the base'}"
