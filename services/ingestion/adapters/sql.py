"""The catalogue in PostgreSQL: row locks order versions, and an outbox publishes outcomes."""

import json
from collections.abc import Callable, Container, Sequence
from dataclasses import asdict, replace
from typing import Any

from sqlalchemy import Connection, Engine, Row, select, text, update
from sqlalchemy.dialects.postgresql import insert

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
    RejectionReason,
    SubmissionRecord,
    keyed_digest,
    replayed_digest,
)
from services.ingestion.ports import Catalogue
from services.ingestion.replay_domain import ReplayOutcome
from services.ingestion.wire import from_outcome, own_supersede_id, supersede_id
from tailor.events.envelope import new_id
from tailor.events.outbox import Outbox
from tailor.sql import transaction
from tailor.storage.ref import Ref
from tailor.values import Labels, Span, SpanKind

# Outcomes of a replay's document that its owner can still change by publishing it.
WAITING = ("", ReplayOutcome.NEEDS_OWNER, ReplayOutcome.CHANGED, ReplayOutcome.UNREACHABLE, ReplayOutcome.UNREADABLE)


class SqlCatalogue(Catalogue):
    """Safe for several replicas at once. `erased` holds the ids of erased documents.

    `barrier` is the digest of the policy and detectors under which documents pass now: the same text under another one is not a duplicate.
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
        with transaction(self._engine) as connection:
            return self._find(connection, key)

    def republish(self, outcome: Outcome) -> None:
        with transaction(self._engine) as connection:
            self._outbox.add(connection, *from_outcome(outcome))

    def reject(self, receipt: Receipt, external_id: str | None, rejection: Rejection) -> Outcome:
        if external_id is not None:
            self._introduce(external_id, "")
        with transaction(self._engine) as connection:
            if external_id is not None:
                rejection = replace(rejection, document_id=self._lock(connection, external_id).document_id)
            return self.store(connection, receipt, rejection)

    def accept(self, submission: ParsedSubmission, store: Callable[[str, int], Ref]) -> Outcome:
        external_id, content = submission.submission.external_id, submission.submission.content
        receipt, name = submission.receipt, content.name if isinstance(content, File) else ""
        self._introduce(external_id, name)
        with transaction(self._engine) as connection:
            document = self._lock(connection, external_id)
            # With the row locked, a concurrent redelivery that came first has stored its outcome by now.
            known = self._find(connection, receipt.key)
            if known is not None:
                return known
            if document.erasure_id or document.document_id in self._erased:
                return self.store(connection, receipt, submission.reject_erased(document.document_id))
            if document.kind not in ("", submission.submission.kind):
                return self.store(
                    connection, receipt, submission.reject_other_kind(document.document_id, document.kind)
                )
            barrier = self._barrier()
            duplicate_of = self._current_holder(connection, submission.digest)
            is_own = duplicate_of == document.document_id
            is_outdated = is_own and bool(barrier) and document.barrier not in ("", barrier)
            may_supersede = duplicate_of is None or is_own
            supersedes = may_supersede and self._superseding(connection, document, barrier, is_outdated=is_outdated)
            if duplicate_of is not None and not supersedes:
                return self.store(connection, receipt, submission.reject_duplicate(document.document_id, duplicate_of))
            sequence = document.sequence + 1
            digest = submission.digest
            if is_own:
                digest = replayed_digest(self._digest_key, digest, document.document_id, sequence)
            text_ref = store(document.document_id, sequence)
            outcome = submission.accept(document.document_id, sequence, text_ref, digest, supersedes or "")
            names = {} if document.external_id else {"external_id": external_id, "file_name": name}
            self._update(connection, document, submission, names | {"sequence": sequence, "barrier": barrier})
            return self.store(connection, receipt, outcome)

    def _update(
        self, connection: Connection, document: Row[Any], submission: ParsedSubmission, values: dict[str, Any]
    ) -> None:
        """Make the submission the document's newest version."""
        reference = b""
        if self._references is not None:
            reference = self._references.seal(document.document_id, submission.reference)
        change = update(DOCUMENTS).where(DOCUMENTS.c.document_id == document.document_id)
        connection.execute(
            change.values(digest=submission.digest, reference=reference, kind=submission.submission.kind, **values)
        )

    def _superseding(self, connection: Connection, document: Row[Any], barrier: str, *, is_outdated: bool) -> str:
        """The erasure under which a new version supersedes what was derived from the earlier ones; empty if it does not.

        It does if a replay waits for the document, or if the same text passed under another policy or other detectors.
        """
        table, replays = REPLAY_DOCUMENTS.c, REPLAYS.c
        query = (
            select(table.replay_id, table.number)
            .join(REPLAYS, replays.replay_id == table.replay_id)
            .where(table.document_id == document.document_id, table.outcome.in_(WAITING), replays.barrier == barrier)
            .order_by(replays.position.desc())
        )
        waiting = connection.execute(query.limit(1)).one_or_none() if document.sequence else None
        if waiting is None:
            return own_supersede_id(barrier) if is_outdated else ""
        is_waiting = (table.replay_id == waiting.replay_id) & (table.document_id == document.document_id)
        connection.execute(update(REPLAY_DOCUMENTS).where(is_waiting).values(outcome=ReplayOutcome.CURRENT))
        return supersede_id(waiting.replay_id, waiting.number)

    def resolve(self, external_id: str, kind: DocumentKind) -> str | None:
        is_named = DOCUMENTS.c.external_hash == self._hash(external_id)
        query = select(DOCUMENTS.c.document_id).where(is_named, DOCUMENTS.c.kind.in_(("", kind)))
        with transaction(self._engine) as connection:
            return connection.execute(query).scalar()

    def release(self, document_id: str, submission_id: str, later: LaterRejection) -> None:
        is_submission = (SUBMISSIONS.c.document_id == document_id) & (SUBMISSIONS.c.submission_id == submission_id)
        with transaction(self._engine) as connection:
            stored = connection.execute(select(SUBMISSIONS.c.outcome).where(is_submission)).scalar()
            outcome = None if stored is None else load_outcome(stored)
            if isinstance(outcome, Acceptance):
                columns = {"later_reason": later.reason, "later_hint": later.hint}
                connection.execute(update(SUBMISSIONS).where(is_submission).values(columns))
                is_current = (DOCUMENTS.c.document_id == document_id) & (DOCUMENTS.c.sequence == outcome.sequence)
                connection.execute(update(DOCUMENTS).where(is_current).values(digest=None))

    def find_submissions(self, external_id: str, limit: int) -> Sequence[SubmissionRecord]:
        external_hash = self._hash(external_id)
        document = select(DOCUMENTS.c.document_id).where(DOCUMENTS.c.external_hash == external_hash).scalar_subquery()
        columns = SUBMISSIONS.c
        query = select(columns.outcome, columns.publisher, columns.later_reason, columns.later_hint)
        query = query.where((columns.external_hash == external_hash) | (columns.document_id == document))
        with transaction(self._engine) as connection:
            rows = connection.execute(query.order_by(columns.create_time.desc()).limit(limit)).all()
        return [
            SubmissionRecord(
                load_outcome(row.outcome),
                row.publisher,
                LaterRejection(row.later_reason, row.later_hint) if row.later_reason else None,
            )
            for row in rows
        ]

    def _introduce(self, external_id: str, file_name: str) -> None:
        """Give the document its id in a separate transaction, so that objects stored under the id are found again after a crash."""
        row = {
            "document_id": new_id("doc"),
            "external_hash": self._hash(external_id),
            "external_id": external_id,
            "file_name": file_name,
        }
        with transaction(self._engine) as connection:
            connection.execute(insert(DOCUMENTS).values(row).on_conflict_do_nothing(index_elements=["external_hash"]))

    def _lock(self, connection: Connection, external_id: str) -> Row[Any]:
        query = select(DOCUMENTS).where(DOCUMENTS.c.external_hash == self._hash(external_id)).with_for_update()
        return connection.execute(query).one()

    def _hash(self, external_id: str) -> str:
        return keyed_digest(self._digest_key, "external id", external_id.encode())

    def _current_holder(self, connection: Connection, digest: str) -> str | None:
        """The document whose current text has this digest. Locks the digest until the transaction ends."""
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": int(digest[:15], 16)})
        return connection.execute(select(DOCUMENTS.c.document_id).where(DOCUMENTS.c.digest == digest)).scalar()

    def store(self, connection: Connection, receipt: Receipt, outcome: Outcome) -> Outcome:
        """Store and publish an outcome within a transaction; returns the one that is stored already, if there is one."""
        row = {
            "key": receipt.key,
            "submission_id": outcome.submission_id,
            "document_id": outcome.document_id,
            "outcome": _dump(outcome),
            "external_hash": self._hash(receipt.claimed_id) if receipt.claimed_id else None,
            "publisher": receipt.publisher,
        }
        inserted = (
            insert(SUBMISSIONS).values(row).on_conflict_do_nothing(index_elements=["key"]).returning(SUBMISSIONS.c.key)
        )
        if connection.execute(inserted).scalar() is None:
            return self._find(connection, receipt.key) or outcome
        self._outbox.add(connection, *from_outcome(outcome))
        return outcome

    def _find(self, connection: Connection, key: str) -> Outcome | None:
        stored = connection.execute(select(SUBMISSIONS.c.outcome).where(SUBMISSIONS.c.key == key)).scalar()
        return None if stored is None else load_outcome(stored)


def adopt_barrier(engine: Engine, barrier: str) -> None:
    """Record the policy and detectors of what was accepted before they were known."""
    is_new = (DOCUMENTS.c.barrier == "") & DOCUMENTS.c.digest.is_not(None)
    with transaction(engine) as connection:
        connection.execute(update(DOCUMENTS).where(is_new).values(barrier=barrier))


def _dump(outcome: Outcome) -> str:
    return json.dumps(asdict(outcome), sort_keys=True)


def load_outcome(stored: str) -> Outcome:
    """Read a stored outcome."""
    content = json.loads(stored)
    content["labels"] = Labels(**content["labels"])
    if "reason" in content:
        return Rejection(**{**content, "reason": RejectionReason(content["reason"])})
    spans = tuple(Span(**{**span, "kind": SpanKind(span["kind"])}) for span in content["spans"])
    return Acceptance(
        **{**content, "kind": DocumentKind(content["kind"]), "text": Ref(**content["text"]), "spans": spans}
    )
