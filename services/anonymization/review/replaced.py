"""What data protection does about strings that are replaced in many documents: one function per command. True values are never logged."""

from collections.abc import Iterable, Sequence

from services.anonymization.domain import MAX_SEARCH_IDS, Passed
from services.anonymization.review.domain import join_parts
from services.anonymization.review.handlers import Review
from services.anonymization.review.replaced_domain import (
    CONTEXT_CHARS,
    OverRedactionCount,
    ReplacedDecision,
    ReplacedPlace,
    ReplacedString,
    RevealedString,
    find_surrogate,
    spellings,
    spread,
)
from tailor.errors import FailedPrecondition, InvalidArgument, NotFound, Reason

SEES_STRING = "sees a string that many documents have"
SEES_PLACES = "sees the places of a string that many documents have"
DECISIONS = {
    ReplacedDecision.ALLOWED: "allows a string that many documents have",
    ReplacedDecision.KEPT: "keeps replacing a string that many documents have",
}
# A decision needs a look at the places within this time before it.
SEEN_SECONDS = 24 * 3600.0


def get_replaced(
    review: Review, caller: str, entity_type: str, surrogate: str, *, with_places: bool = True
) -> RevealedString:
    """A listed string with its true value and places. Recorded before it is answered. Raises NotFound (UNKNOWN_REPLACED)."""
    counts = _find(review, entity_type, surrogate)
    review.audit.record(caller, counts.entity_type, counts.surrogate, SEES_PLACES if with_places else SEES_STRING)
    return RevealedString(counts, _reveal(review, counts), _places(review, counts) if with_places else ())


def decide_replaced(review: Review, caller: str, entity_type: str, surrogate: str, decision: ReplacedDecision) -> None:
    """Record a decision about a listed string; a string that is not personal goes into the policy's `[allow]`. Idempotent.

    Raises NotFound (UNKNOWN_REPLACED), FailedPrecondition (PLACES_NOT_SEEN), InvalidArgument (INVALID_POLICY, TOO_LONG).
    """
    counts = _find(review, entity_type, surrogate)
    if not review.audit.has(caller, counts.entity_type, counts.surrogate, SEES_PLACES, SEEN_SECONDS):
        raise FailedPrecondition(
            Reason.PLACES_NOT_SEEN,
            "Look at the places of this string first, with the same key: `tailor review replaced TYPE:SURROGATE`.",
        )
    review.audit.record(caller, counts.entity_type, counts.surrogate, DECISIONS[decision])
    if decision is ReplacedDecision.ALLOWED:
        spelt = review.strings.spellings(counts.entity_type, counts.surrogate)
        review.allow_terms(spellings(_reveal(review, counts), spelt), caller)
    review.strings.decide(counts.entity_type, counts.surrogate, decision, caller)


def measure_over_redaction(review: Review, document_ids: Iterable[Sequence[str]]) -> OverRedactionCount:
    """Count replacements, in documents, of strings that are hardly personal, without those that stay replaced by decision.

    The ids come in batches, which are read one at a time. Raises InvalidArgument (TOO_LONG).
    """
    counted = review.strings.count_documents()
    suspects = review.strings.find_suspects(counted.min_documents)
    replacements = words = documents = 0
    for batch in document_ids:
        if len(batch) > MAX_SEARCH_IDS:
            raise InvalidArgument(
                Reason.TOO_LONG,
                "The request is too long.",
                field_violations={"document_ids": f"has over {MAX_SEARCH_IDS} ids in one message"},
            )
        measured = review.strings.measure(suspects, batch)
        replacements += measured.replacements
        words += measured.words
        documents += measured.documents
    return OverRedactionCount(replacements, words, documents)


def _find(review: Review, entity_type: str, surrogate: str) -> ReplacedString:
    counts = review.strings.find_listed(
        entity_type, surrogate.strip().lower(), review.strings.count_documents().min_documents
    )
    if counts is None:
        raise NotFound(
            Reason.UNKNOWN_REPLACED,
            "No such string is replaced in many documents of many departments or sources. "
            "`tailor review replaced` lists those that are.",
        )
    return counts


def _reveal(review: Review, counts: ReplacedString) -> str:
    value = review.vault.reveal(counts.entity_type, counts.surrogate)
    if value is None:
        raise NotFound(Reason.UNKNOWN_REPLACED, "The vault no longer has this string; publish its documents again.")
    return value


def _places(review: Review, counts: ReplacedString) -> tuple[ReplacedPlace, ...]:
    ids = review.strings.documents_with(counts.entity_type, counts.surrogate)
    return spread([_places_in(review, document_id, counts.surrogate) for document_id in ids])


def _places_in(review: Review, document_id: str, surrogate: str) -> list[ReplacedPlace]:
    """The places in a document's newest version; none if its text was replaced or erased meanwhile."""
    document = review.documents.find(document_id=document_id)
    outcome = None if document is None else review.ledger.find(document_id, document.sequence)
    if document is None or not isinstance(outcome, Passed):
        return []
    try:
        text = join_parts(review.corpus.read(outcome.text).parts)
    except NotFound:
        return []
    places, labels = [], outcome.ingested.labels
    for start, end in find_surrogate(text, surrogate, document.replaced or ()):
        first = max(0, start - CONTEXT_CHARS)
        part = text[first : end + CONTEXT_CHARS]
        places.append(ReplacedPlace(document_id, labels.source, labels.department, part, start - first, end - first))
    return places
