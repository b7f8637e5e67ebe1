"""Chooses the real adapters of the review."""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Engine

from services.anonymization.domain import ENTITY_TYPES, Action, Policy
from services.anonymization.ledger import SqlLedger
from services.anonymization.ports import AuditLog, Corpus, Revealer
from services.anonymization.recognise.lexicon import Lexicon
from services.anonymization.review.documents import SqlReviewedDocuments
from services.anonymization.review.handlers import Review
from services.anonymization.review.ports import TypesOf
from services.anonymization.review.quasi_identifiers import ListedQuasiIdentifiers
from services.anonymization.review.queue import SqlReviewQueue
from services.anonymization.review.recorder import DocumentRecorder
from services.anonymization.review.replaced import AllowTerms, ReplacedReview
from services.anonymization.review.replaced_tables import SqlReplacedStrings
from services.anonymization.review.terms import HashedTerms
from services.anonymization.review_rpc import ReviewServicer
from services.anonymization.settings import Settings
from services.anonymization.vault.keyring import INDEX, subkey
from services.anonymization.vault.vault import SqlVault
from tailor.api.anonymization.v1.review_pb2_grpc import add_ReviewServiceServicer_to_server
from tailor.rpc.identity import Identity
from tailor.values import Labels


@dataclass(frozen=True)
class ReviewParts:
    """What the anonymizer and the handlers of events need of the review, and what its service needs besides."""

    documents: SqlReviewedDocuments
    queue: SqlReviewQueue
    terms: HashedTerms
    recorder: DocumentRecorder
    strings: SqlReplacedStrings

    def servicer(
        self, settings: Settings, policy: Policy, ledger: SqlLedger, corpus: Corpus, audit: AuditLog
    ) -> tuple[Callable[..., None], ReviewServicer]:
        """The gRPC service with its adder. Raises InvalidArgument (INVALID_IDENTITY_KEY)."""
        identity = Identity.load("anonymization", settings.identity_key_file)
        review = Review(
            self.documents,
            self.queue,
            ledger,
            corpus,
            audit,
            types_of(policy),
            self.terms.hash,
            settings.residual_limit,
        )
        servicer = ReviewServicer(
            review, policy.digest, lambda data: (identity.sign(data), identity.public_key), identity.verify
        )
        return add_ReviewServiceServicer_to_server, servicer

    def replaced(
        self, ledger: SqlLedger, corpus: Corpus, vault: Revealer, audit: AuditLog, allow_terms: AllowTerms
    ) -> ReplacedReview:
        """The review of what is replaced in many documents."""
        return ReplacedReview(self.strings, self.documents, ledger, corpus, vault, audit, allow_terms)


def build_review(engine: Engine, vault: SqlVault, lexicon: Lexicon) -> ReviewParts:
    """Connect everything over a migrated database."""
    documents, queue, secret = SqlReviewedDocuments(engine), SqlReviewQueue(engine), vault.secret(INDEX)
    terms = HashedTerms(subkey(secret, "review terms"), queue.terms_version, queue.terms)
    quasi_identifiers = ListedQuasiIdentifiers(lambda word: lexicon.has_any(("places",), word))
    recorder = DocumentRecorder(documents, terms, quasi_identifiers, subkey(secret, "quasi-identifiers"))
    return ReviewParts(documents, queue, terms, recorder, SqlReplacedStrings(engine))


def types_of(policy: Policy) -> TypesOf:
    """The types that may be marked in documents with given labels: all that the policy knows and does not keep there."""
    kinds = tuple(dict.fromkeys((*ENTITY_TYPES, *policy.codes, *policy.deny)))

    def not_kept(labels: Labels) -> tuple[str, ...]:
        return tuple(kind for kind in kinds if policy.action(kind, labels) is not Action.KEEP)

    return not_kept
