"""What data protection does in a review: one function per command. Texts of passages are never logged."""

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from services.anonymization.domain import ENTITY_TYPES, Action, Passed, Policy
from services.anonymization.ledger import SqlAuditLog, SqlLedger
from services.anonymization.review.documents import SqlReviewedDocuments
from services.anonymization.review.domain import (
    CONTEXT_CHARS,
    MAX_TERM_CHARS,
    PASSAGE_CHARS,
    RARE_BELOW,
    PassageKind,
    PassageMark,
    PassageStretch,
    PassageView,
    QueueCounts,
    QueuedPassage,
    ResidualLimit,
    ReviewTerm,
    SampleDraw,
    StretchKind,
    check_marks,
    check_sample,
    count_passages,
    join_parts,
    nothing_reviewed,
    passage_bounds,
    term_words,
)
from services.anonymization.review.estimates import (
    METHOD,
    ResidualEstimate,
    ResidualShare,
    check_limit,
    estimate,
    results_of,
)
from services.anonymization.review.queue import SqlReviewQueue
from services.anonymization.review.replaced_tables import SqlReplacedStrings
from services.anonymization.review.sampling import DrawnSample, draw_sample
from services.anonymization.review.terms import HashedTerms
from services.anonymization.stored_texts import StoredCorpus
from services.anonymization.vault.vault import SqlVault
from tailor.errors import FailedPrecondition, InvalidArgument, NotFound, Reason, TailorError
from tailor.events.envelope import new_id
from tailor.values import Labels

# Seeds fit a signed integer of 64 bits, and are easy to write down.
SEEDS = 2**31
AUDITED = "REVIEW"


class Review:
    """The collaborators of the handlers.

    `policy` returns the one in force. `allow_terms` puts terms into its `[allow]`, as a caller; it is idempotent, and raises
    InvalidArgument (INVALID_POLICY, TOO_LONG). Without a limit, nothing is refused.
    """

    def __init__(
        self,
        vault: SqlVault,
        terms: HashedTerms,
        corpus: StoredCorpus,
        *,
        policy: Callable[[], Policy],
        allow_terms: Callable[[Sequence[str], str], None],
        limit: ResidualLimit | None = None,
    ) -> None:
        self.vault, self.terms, self.corpus, self.limit = vault, terms, corpus, limit
        self.policy, self.allow_terms = policy, allow_terms
        self.documents, self.queue = SqlReviewedDocuments(vault.engine), SqlReviewQueue(vault.engine)
        self.ledger, self.audit = SqlLedger(vault.engine), SqlAuditLog(vault.engine)
        self.strings = SqlReplacedStrings(vault.engine)


@dataclass(frozen=True)
class ResidualReport:
    """What is known of a corpus. `refusal` says why the limit is not met; it is empty if it is met or not set.

    `rules_only_documents` are, by language, the documents with passages that no detector covers and that were masked by rules only.
    """

    draw: SampleDraw | None
    passages_now: int
    overall: ResidualEstimate
    strata: tuple[ResidualEstimate, ...]
    waiting: QueueCounts
    rare_combinations: int
    limit: ResidualLimit | None = None
    refusal: str = ""
    rules_only_documents: Mapping[str, int] = field(default_factory=dict)


def start_sample(
    review: Review, reviewer: str, *, size: int, min_per_stratum: int, seed: int, replace: bool
) -> tuple[str, DrawnSample]:
    """Draw a sample and queue it; returns its id too. Recorded before it is drawn.

    Raises InvalidArgument (INVALID_SAMPLE), FailedPrecondition (SAMPLE_UNFINISHED, NO_PASSAGES).
    """
    check_sample(size, min_per_stratum)
    waiting = review.queue.count_waiting().sample
    if waiting and not replace:
        raise FailedPrecondition(
            Reason.SAMPLE_UNFINISHED,
            f"{waiting} passages of the last sample wait for review. Review them, or give `--replace`: the estimate then starts again.",
        )
    seed = seed or secrets.randbelow(SEEDS - 1) + 1
    review.audit.record(reviewer, AUDITED, "", f"draws a sample of {size} passages")
    drawn = draw_sample(review.documents.stream(), size, min_per_stratum, seed)
    if not drawn.passages:
        raise FailedPrecondition(Reason.NO_PASSAGES, "No document has passed the barrier yet. Publish some first.")
    sample_id = new_id("smp")
    review.queue.start_sample(sample_id, seed, drawn)
    return sample_id, drawn


def next_passage(review: Review, reviewer: str, kind: PassageKind | None) -> PassageView | None:
    """The reviewer's next passage; None if nothing waits. Passages whose document is gone are removed."""
    while (queued := review.queue.reserve(reviewer, kind)) is not None:
        try:
            return view_passage(review, queued)
        except NotFound:
            review.queue.delete(passage_id=queued.passage_id)
    return None


def get_passage(review: Review, document_id: str, number: int) -> PassageView:
    """A passage of a document's newest version. Raises NotFound (UNKNOWN_PASSAGE)."""
    document = review.documents.find(document_id=document_id)
    if document is None or not 0 <= number < document.passages:
        raise _unknown_passage()
    queued = QueuedPassage(
        "", PassageKind.SAMPLE, document_id, document.sequence, number, document.source, document.language
    )
    return view_passage(review, queued)


def view_passage(review: Review, queued: QueuedPassage) -> PassageView:
    """Read a passage with its context from the corpus. Raises NotFound (UNKNOWN_PASSAGE) if the text no longer exists."""
    outcome = review.ledger.find(queued.document_id, queued.sequence)
    if not isinstance(outcome, Passed):
        raise _unknown_passage()
    text = join_parts(review.corpus.read(outcome.text).parts)
    start, end = passage_bounds(text, queued.number, count_passages(text))
    first, last = max(0, start - CONTEXT_CHARS), min(len(text), end + CONTEXT_CHARS)
    document = review.documents.find(document_id=queued.document_id)
    known = document.replaced if document is not None and document.sequence == queued.sequence else None
    stretches = [*(PassageStretch(*place) for place in known or ()), *queued.stretches]
    return PassageView(
        queued,
        text[first:last],
        start - first,
        end - first,
        tuple(_shift(item, first, last) for item in stretches if item.start < last and item.end > first),
        known is not None,
        _markable_types(review.policy(), outcome.ingested.labels),
    )


def decide_passage(review: Review, reviewer: str, passage_id: str, marks: Sequence[PassageMark], *, skip: bool) -> None:
    """Record what a passage still contains; with `skip`, only put it at the end of the queue.

    From then on, marked texts are personal in every document, and those marked without a type are not.
    Raises NotFound (UNKNOWN_PASSAGE), FailedPrecondition (ALREADY_REVIEWED), InvalidArgument (INVALID_MARKS).
    """
    queued = review.queue.find(passage_id=passage_id, is_decided=False)
    if queued is None:
        raise _already_reviewed() if review.queue.has(passage_id=passage_id) else _unknown_passage()
    if skip:
        review.queue.skip(passage_id)
        return
    view = view_passage(review, queued)
    check_marks(view, marks)
    terms = [(mark, _term(review, view.text[mark.start : mark.end], mark.entity_type)) for mark in marks]
    if not review.queue.decide(queued, reviewer, terms):
        raise _already_reviewed()


def undo_decision(review: Review, reviewer: str) -> str:
    """Take back the reviewer's last decision; returns the passage's id. Raises NotFound (NOTHING_TO_UNDO)."""
    passage_id = review.queue.undo(reviewer)
    if passage_id is None:
        raise NotFound(Reason.NOTHING_TO_UNDO, "You have no decision in this sample that can be taken back.")
    return passage_id


def drop_term(review: Review, reviewer: str, term: str) -> None:
    """Forget what was decided about a text. Raises InvalidArgument (INVALID_TERM), NotFound (UNKNOWN_TERM)."""
    if len(term) > MAX_TERM_CHARS or not term_words(term):
        raise InvalidArgument(
            Reason.INVALID_TERM, f"Give the text as it was marked, at most {MAX_TERM_CHARS} characters."
        )
    review.audit.record(reviewer, AUDITED, "", "drops a reviewed term")
    if not review.queue.drop_term(review.terms.hash(term)):
        raise NotFound(Reason.UNKNOWN_TERM, "No review decided about this text.")


def get_report(review: Review, sources: Sequence[str]) -> ResidualReport:
    """What is known of the sources' documents, of all if none is named."""
    draw = review.queue.newest_sample()
    results = results_of(draw, sources) if draw else []
    refusal = ""
    if review.limit is not None:
        try:
            check_limit(review.limit, draw, sources)
        except TailorError as error:
            refusal = error.message
    return ResidualReport(
        draw,
        review.documents.count_passages(sources),
        estimate(results),
        tuple(estimate([result], result.stratum.source, result.stratum.language) for result in results),
        review.queue.count_waiting(),
        review.documents.count_rare(),
        review.limit,
        refusal,
        review.documents.count_rules_only(sources),
    )


def check_residual(review: Review, sources: Sequence[str]) -> None:
    """Raises FailedPrecondition (RESIDUAL_UNKNOWN, RESIDUAL_TOO_HIGH) if a limit is set and the sources' documents do not meet it."""
    if review.limit is not None:
        check_limit(review.limit, review.queue.newest_sample(), sources)


def report_for_statement(review: Review, reviewer: str, sources: Sequence[str]) -> ResidualReport:
    """The report that a statement signs; recorded. Raises FailedPrecondition (NOTHING_REVIEWED)."""
    report = get_report(review, sources)
    if report.overall.any is None:
        raise nothing_reviewed()
    review.audit.record(reviewer, AUDITED, "", "signs a residual statement")
    return report


def statement_body(report: ResidualReport, sources: tuple[str, ...], policy_digest: str, now: datetime) -> str:
    """The JSON to sign: ids, numbers and labels, no personal data."""
    assert report.draw is not None  # noqa: S101 - a report without a sample is not signed
    limit = report.limit
    content = {
        "kind": "tailor residual statement",
        "create_time": now.isoformat(timespec="seconds"),
        "sources": list(sources) or "all",
        "sample": {
            "id": report.draw.sample_id,
            "seed": report.draw.seed,
            "create_time": report.draw.create_time.astimezone(UTC).isoformat(timespec="seconds"),
        },
        "passage_characters": PASSAGE_CHARS,
        "passages_now": report.passages_now,
        "method": METHOD,
        "overall": _describe_estimate(report.overall),
        "strata": [
            {"source": item.stratum.source, "language": item.stratum.language, **_describe_estimate(item)}
            for item in report.strata
        ],
        "limit": None
        if limit is None
        else {"max_residual": limit.max_residual, "bound": limit.bound.value, "met": not report.refusal},
        "rare_combinations": {"fewer_documents_than": RARE_BELOW, "count": report.rare_combinations},
        "documents_masked_by_rules_only": dict(report.rules_only_documents),
        "policy_digest": policy_digest,
    }
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False)


def _term(review: Review, value: str, entity_type: str) -> ReviewTerm:
    return ReviewTerm(review.terms.hash(value), entity_type, len(term_words(value)))


def _markable_types(policy: Policy, labels: Labels) -> tuple[str, ...]:
    """The types that may be marked in documents with these labels: all that the policy knows and does not keep there."""
    kinds = dict.fromkeys((*ENTITY_TYPES, *policy.codes, *policy.deny))
    return tuple(kind for kind in kinds if policy.action(kind, labels) is not Action.KEEP)


def _shift(item: PassageStretch, first: int, last: int) -> PassageStretch:
    """The part of a stretch within [first, last), at its place after `first`."""
    kind = item.kind if item.kind is StretchKind.DISAGREEMENT else StretchKind.REPLACED
    return PassageStretch(max(item.start, first) - first, min(item.end, last) - first, kind, item.entity_type)


def _unknown_passage() -> NotFound:
    return NotFound(Reason.UNKNOWN_PASSAGE, "There is no such passage; its document was published again or erased.")


def _already_reviewed() -> FailedPrecondition:
    return FailedPrecondition(
        Reason.ALREADY_REVIEWED,
        "This passage was reviewed already. Take the next one; your own last decision can be undone.",
    )


def _describe_estimate(item: ResidualEstimate) -> dict[str, object]:
    return {
        "passages": item.stratum.passages,
        "drawn": item.stratum.drawn,
        "reviewed": item.reviewed,
        "left": _describe_share(item.any),
        "left_by_type": {kind: _describe_share(share) for kind, share in item.types.items()},
        "values_by_type": dict(item.values),
    }


def _describe_share(share: ResidualShare | None) -> dict[str, object] | None:
    if share is None:
        return None
    return {
        "passages": share.left,
        "share": round(share.share, 6),
        "interval_95": [round(share.low, 6), round(share.high, 6)],
    }
