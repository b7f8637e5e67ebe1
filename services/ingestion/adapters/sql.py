"""The catalogue in PostgreSQL: row locks order versions, and an outbox publishes outcomes."""

from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Engine, Row, select

from services.ingestion.adapters.references import ReferenceCipher
from services.ingestion.adapters.tables import DOCUMENTS, REPLAY_DOCUMENTS, REPLAYS, SUBMISSIONS
from services.ingestion.domain import (
    Acceptance,
    DocumentKind,
    File,
    LaterRejection,
    Outcome,
    ParsedSubmission,
    Receipt,
    Rejection,
    SubmissionRecord,
    keyed_digest,
    replayed_digest,
)
from services.ingestion.replay_domain import ReplayOutcome
from services.ingestion.wire import from_outcome, own_supersede_id, supersede_id
from tailor.events.envelope import new_id
from tailor.events.outbox import Outbox
from tailor.rows import Rows
from tailor.sql import acquire_lock, transaction
from tailor.storage.ref import Ref

# Outcomes of a replay's document that its owner can still change by publishing it.
WAITING = ("", ReplayOutcome.NEEDS_OWNER, ReplayOutcome.CHANGED, ReplayOutcome.UNREACHABLE, ReplayOutcome.UNREADABLE)


class SqlCatalogue:
    """Documents, versions and the outcome of every submission. Stores and publishes each outcome in one transaction, once.

    Safe for several replicas at once. `erased` holds the ids of erased documents. `barrier` is the digest of the policy and detectors under
    which documents pass now: the same text under another one is not a duplicate.
    """

    def __init__(
        self,
        engine: Engine,
        outbox: Outbox,
        digest_key: bytes,
        erased: Container[str] = frozenset(),
        *,
        barrier: Callable[[], str] = lambda: "",
        references: ReferenceCipher | None = None,
    ) -> None:
        self._barrier = barrier
        self._references = references
        self._engine = engine
        self._outbox = outbox
        self._digest_key = digest_key
        self._erased = erased

    def find(self, key: str) -> Outcome | None:
        """The stored outcome of a submission."""
        return _find(self._engine, key)

    def republish(self, outcome: Outcome) -> None:
        """Publish a stored outcome again, with the same event id."""
        with transaction(self._engine) as connection:
            self._outbox.add(connection, *from_outcome(outcome))

    def reject(self, receipt: Receipt, external_id: str | None, rejection: Rejection) -> Outcome:
        """Store and publish a rejection, under the document's id if `external_id` is known.

        Returns the outcome that another replica stored first, if one did.
        """
        if external_id is not None:
            self._introduce(external_id, "")
        with transaction(self._engine) as connection:
            if external_id is not None:
                rejection = replace(rejection, document_id=self._lock(connection, external_id).document_id)
            return self.store(connection, receipt, rejection)

    def accept(self, submission: ParsedSubmission, store: Callable[[str, int], Ref]) -> Outcome:
        """Create a version, or reject the submission if its document is erased or of another kind, or its digest is current.

        Calls `store(document_id, sequence)` at most once. Returns the outcome that another replica stored first, if one did.
        """
        external_id, content = submission.submission.external_id, submission.submission.content
        receipt, name = submission.receipt, content.name if isinstance(content, File) else ""
        self._introduce(external_id, name)
        with transaction(self._engine) as connection:
            document = self._lock(connection, external_id)
            # With the row locked, a concurrent redelivery that came first has stored its outcome by now.
            known = _find(connection, receipt.key)
            if known is not None:
                return known
            if document.erasure_id or document.document_id in self._erased:
                return self.store(connection, receipt, submission.reject_erased(document.document_id))
            if document.kind not in ("", submission.submission.kind):
                return self.store(
                    connection, receipt, submission.reject_other_kind(document.document_id, document.kind)
                )
            barrier = self._barrier()
            duplicate_of = _current_holder(connection, submission.digest)
            is_own = duplicate_of == document.document_id
            is_outdated = is_own and bool(barrier) and document.barrier not in ("", barrier)
            may_supersede = duplicate_of is None or is_own
            supersedes = may_supersede and _superseding(connection, document, barrier, is_outdated=is_outdated)
            if duplicate_of is not None and not supersedes:
                return self.store(connection, receipt, submission.reject_duplicate(document.document_id, duplicate_of))
            sequence = document.sequence + 1
            digest = submission.digest
            if is_own:
                digest = replayed_digest(self._digest_key, digest, document.document_id, sequence)
            text_ref = store(document.document_id, sequence)
            outcome = submission.accept(document.document_id, sequence, text_ref, digest, supersedes or "")
            names = {} if document.external_id else {"external_id": external_id, "file_name": name}
            version = {"digest": submission.digest, "kind": submission.submission.kind, "barrier": barrier}
            reference = self._seal(document.document_id, submission)
            changed = {"sequence": sequence, "reference": reference, **version, **names}
            Rows(connection, DOCUMENTS, Row).update(changed, document_id=document.document_id)
            return self.store(connection, receipt, outcome)

    def _seal(self, document_id: str, submission: ParsedSubmission) -> bytes:
        return b"" if self._references is None else self._references.seal(document_id, submission.reference)

    def resolve(self, external_id: str, kind: DocumentKind) -> str | None:
        """The id of the document that its publisher calls `external_id`; None if it is of another kind."""
        document = Rows(self._engine, DOCUMENTS, Row).find(external_hash=self._hash(external_id), kind=["", kind])
        return None if document is None else str(document.document_id)

    def release(self, document_id: str, submission_id: str, later: LaterRejection) -> None:
        """Store why a version went no further, and allow its text to be published again.

        Has no effect if the submission created no version. If a newer version exists, that one's text stays current.
        """
        with transaction(self._engine) as connection:
            submissions = Rows(connection, SUBMISSIONS, SubmissionRecord)
            stored = submissions.find(document_id=document_id, submission_id=submission_id)
            if stored is not None and isinstance(stored.outcome, Acceptance):
                columns = {"later_reason": later.reason, "later_hint": later.hint}
                submissions.update(columns, document_id=document_id, submission_id=submission_id)
                documents = Rows(connection, DOCUMENTS, Row)
                documents.update({"digest": None}, document_id=document_id, sequence=stored.outcome.sequence)

    def find_submissions(self, external_id: str, limit: int) -> Sequence[SubmissionRecord]:
        """The submissions under a publisher's id, also malformed ones whose id could be read; the newest first."""
        submissions, external_hash = Rows(self._engine, SUBMISSIONS, SubmissionRecord), self._hash(external_id)
        document = select(DOCUMENTS.c.document_id).where(DOCUMENTS.c.external_hash == external_hash).scalar_subquery()
        is_named = (submissions.c.external_hash == external_hash) | (submissions.c.document_id == document)
        return submissions.all(is_named, order=submissions.c.create_time.desc(), limit=limit)

    def _introduce(self, external_id: str, file_name: str) -> None:
        """Give the document its id in a separate transaction, so that objects stored under the id are found again after a crash."""
        names = {"external_id": external_id, "file_name": file_name}
        documents = Rows(self._engine, DOCUMENTS, Row)
        documents.add(document_id=new_id("doc"), external_hash=self._hash(external_id), **names)

    def _lock(self, connection: Connection, external_id: str) -> Row[Any]:
        document = Rows(connection, DOCUMENTS, Row).lock(external_hash=self._hash(external_id))
        assert document is not None  # noqa: S101 - it was introduced
        return document

    def _hash(self, external_id: str) -> str:
        return keyed_digest(self._digest_key, "external id", external_id.encode())

    def store(self, connection: Connection, receipt: Receipt, outcome: Outcome) -> Outcome:
        """Store and publish an outcome within a transaction; returns the one that is stored already, if there is one."""
        is_new = Rows(connection, SUBMISSIONS, SubmissionRecord).add(
            SubmissionRecord(outcome, receipt.publisher),
            key=receipt.key,
            submission_id=outcome.submission_id,
            document_id=outcome.document_id,
            external_hash=self._hash(receipt.claimed_id) if receipt.claimed_id else None,
        )
        if not is_new:
            return _find(connection, receipt.key) or outcome
        self._outbox.add(connection, *from_outcome(outcome))
        return outcome


def _find(database: Engine | Connection, key: str) -> Outcome | None:
    record = Rows(database, SUBMISSIONS, SubmissionRecord).find(key=key)
    return None if record is None else record.outcome


def _current_holder(connection: Connection, digest: str) -> str | None:
    """The document whose current text has this digest. Locks the digest until the transaction ends."""
    acquire_lock(connection, int(digest[:15], 16))
    document = Rows(connection, DOCUMENTS, Row).find(digest=digest)
    return None if document is None else str(document.document_id)


def _superseding(connection: Connection, document: Row[Any], barrier: str, *, is_outdated: bool) -> str:
    """The erasure under which a new version supersedes what was derived from the earlier ones; empty if it does not.

    It does if a replay waits for the document, or if the same text passed under another policy or other detectors.
    """
    replayed, replays = Rows(connection, REPLAY_DOCUMENTS, Row), REPLAYS.c
    query = replayed.select(replays.barrier == barrier, document_id=document.document_id, outcome=WAITING)
    query = query.join(REPLAYS, replays.replay_id == replayed.c.replay_id).order_by(replays.position.desc())
    waiting = next(iter(replayed.fetch(query.limit(1))), None) if document.sequence else None
    if waiting is None:
        return own_supersede_id(barrier) if is_outdated else ""
    current = {"outcome": ReplayOutcome.CURRENT}
    replayed.update(current, replay_id=waiting.replay_id, document_id=document.document_id)
    return supersede_id(waiting.replay_id, waiting.number)


def adopt_barrier(engine: Engine, barrier: str) -> None:
    """Record the policy and detectors of what was accepted before they were known."""
    documents = Rows(engine, DOCUMENTS, Row)
    documents.update({"barrier": barrier}, documents.c.digest.is_not(None), barrier="")
