"""Recording what a review needs when a document passes."""

from collections import defaultdict
from collections.abc import Sequence

from services.anonymization.domain import Anonymized, DocumentText, Ingested
from services.anonymization.recognise.lexicon import Lexicon
from services.anonymization.review.documents import SqlReviewedDocuments
from services.anonymization.review.domain import (
    MAX_DOCUMENT_DISAGREEMENTS,
    PassageKind,
    PassageStretch,
    QueuedPassage,
    ReviewedDocument,
    count_passages,
    join_parts,
    passage_at,
    replaced_stretches,
    standing_disagreements,
)
from services.anonymization.review.quasi_identifiers import ListedQuasiIdentifiers, combine
from services.anonymization.review.replaced_domain import count_surrogates
from services.anonymization.review.terms import HashedTerms
from services.anonymization.vault.keyring import INDEX, subkey
from services.anonymization.vault.vault import SqlVault
from tailor.events.envelope import derive_id


class DocumentRecorder:
    """Records what a review needs of every document: how many passages it has, and where values were replaced. No text. Thread-safe."""

    def __init__(self, vault: SqlVault, terms: HashedTerms, lexicon: Lexicon) -> None:
        self._documents = SqlReviewedDocuments(vault.engine)
        self._terms = terms
        self._quasi_identifiers = ListedQuasiIdentifiers(lambda word: lexicon.has_any(("places",), word))
        # It hashes the values of combinations.
        self._key = subkey(vault.secret(INDEX), "quasi-identifiers")

    def record(self, ingested: Ingested, clean: DocumentText, result: Anonymized, language: str) -> None:
        """Record a version that passed; older ones are no longer sampled. Idempotent."""
        text = join_parts(clean.parts)
        passages, replaced = count_passages(text), replaced_stretches(clean.parts, result.changes)
        places = tuple((item.start, item.end) for item in replaced)
        document = ReviewedDocument(
            ingested.document_id,
            ingested.sequence,
            ingested.labels.source,
            language,
            passages,
            places,
            ingested.labels.department,
            len(text.split()),
        )
        standing = standing_disagreements(clean.parts, result.changes, result.disagreements)
        mentions = self._quasi_identifiers(text, replaced)
        self._documents.keep(
            document,
            self._terms.digest,
            _queue(document, text, standing),
            combine(text, mentions, passages, self._key),
            count_surrogates(result.changes),
        )

    def forget(self, document_id: str) -> int:
        """Remove a document's passages, marks and combinations, and return the number of passages that were in the queue."""
        return self._documents.forget(document_id)


def _queue(document: ReviewedDocument, text: str, standing: Sequence[PassageStretch]) -> list[QueuedPassage]:
    """The passages with the most disagreements."""
    by_number: dict[int, list[PassageStretch]] = defaultdict(list)
    for item in standing:
        by_number[passage_at(text, item.start, document.passages)].append(item)
    numbers = sorted(by_number, key=lambda number: (-len(by_number[number]), number))[:MAX_DOCUMENT_DISAGREEMENTS]
    return [
        QueuedPassage(
            derive_id("psg", document.document_id, document.sequence, number),
            PassageKind.DISAGREEMENT,
            document.document_id,
            document.sequence,
            number,
            document.source,
            document.language,
            tuple(by_number[number]),
        )
        for number in numbers
    ]
