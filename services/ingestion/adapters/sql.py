"""The catalogue in PostgreSQL: row locks order versions, an outbox states what was decided."""

import json
from collections.abc import Callable, Container
from dataclasses import asdict
from typing import Any

from google.protobuf.message import Message
from sqlalchemy import Connection, Engine, Row, select, text, update
from sqlalchemy.dialects.postgresql import insert

from services.ingestion.adapters.tables import DOCUMENTS, SUBMISSIONS
from services.ingestion.domain import (
    Accepted,
    Candidate,
    File,
    Kind,
    Labels,
    Outcome,
    Refused,
    RejectionReason,
    keyed_digest,
)
from services.ingestion.spans import Span, SpanKind
from tailor.events.envelope import new_id
from tailor.events.outbox import Outbox
from tailor.sql import transaction
from tailor.storage.ref import Ref

Encode = Callable[[Outcome], tuple[str, str, Message, str]]


class SqlCatalogue:
    """Several replicas may take in at once."""

    def __init__(
        self,
        engine: Engine,
        outbox: Outbox,
        encode: Encode,
        digest_key: bytes,
        erased: Container[str] = frozenset(),
    ) -> None:
        self._engine = engine
        self._outbox = outbox
        self._encode = encode
        self._digest_key = digest_key
        self._erased = erased

    def find(self, key: str) -> Outcome | None:
        """What became of a submission."""
        with transaction(self._engine) as connection:
            return self._find(connection, key)

    def restate(self, outcome: Outcome) -> None:
        """State a kept outcome again."""
        with transaction(self._engine) as connection:
            self._outbox.add(connection, *self._encode(outcome))

    def refuse(self, key: str, external_id: str | None, refused: Refused) -> Outcome:
        """Keep a rejection."""
        if external_id is not None:
            self._introduce(external_id, "")
        with transaction(self._engine) as connection:
            if external_id is not None:
                document = self._lock(connection, external_id)
                refused = Refused(**{**_fields(refused), "document_id": document.document_id})
            return self._keep(connection, key, refused)

    def accept(self, candidate: Candidate, store: Callable[[str, int], Ref]) -> Outcome:
        """Make a version, unless its digest is current."""
        content = candidate.submission.content
        name = content.name if isinstance(content, File) else ""
        self._introduce(candidate.submission.external_id, name)
        with transaction(self._engine) as connection:
            document = self._lock(connection, candidate.submission.external_id)
            # The row is locked: a redelivery that runs beside this one has been kept by now, if it was first.
            kept = self._find(connection, candidate.key)
            if kept is not None:
                return kept
            if document.erasure_id or document.document_id in self._erased:
                return self._keep(connection, candidate.key, candidate.erased(document.document_id))
            holder = self._holder(connection, candidate.digest)
            if holder is not None:
                return self._keep(connection, candidate.key, candidate.duplicate(document.document_id, holder))
            sequence = document.sequence + 1
            outcome = candidate.accepted(document.document_id, sequence, store(document.document_id, sequence))
            change = update(DOCUMENTS).where(DOCUMENTS.c.document_id == document.document_id)
            names = {} if document.external_id else {"external_id": candidate.submission.external_id, "file_name": name}
            connection.execute(change.values(digest=candidate.digest, sequence=sequence, **names))
            return self._keep(connection, candidate.key, outcome)

    def resolve(self, external_id: str) -> str | None:
        """The id of the document that a publisher calls by this id."""
        query = select(DOCUMENTS.c.document_id).where(DOCUMENTS.c.external_hash == self._hash(external_id))
        with transaction(self._engine) as connection:
            return connection.execute(query).scalar()

    def release(self, document_id: str, submission_id: str) -> None:
        """Let the text of a version that went no further be published again."""
        made = (SUBMISSIONS.c.document_id == document_id) & (SUBMISSIONS.c.submission_id == submission_id)
        with transaction(self._engine) as connection:
            kept = connection.execute(select(SUBMISSIONS.c.outcome).where(made)).scalar()
            outcome = None if kept is None else _load(kept)
            if isinstance(outcome, Accepted):
                current = (DOCUMENTS.c.document_id == document_id) & (DOCUMENTS.c.sequence == outcome.sequence)
                connection.execute(update(DOCUMENTS).where(current).values(digest=None))

    def _introduce(self, external_id: str, file_name: str) -> None:
        """Give the document its id, in a transaction of its own: what is stored under it is found again after a crash."""
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

    def _holder(self, connection: Connection, digest: str) -> str | None:
        """The document whose current text has this digest. Until the transaction ends nobody else may decide about the digest."""
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": int(digest[:15], 16)})
        return connection.execute(select(DOCUMENTS.c.document_id).where(DOCUMENTS.c.digest == digest)).scalar()

    def _keep(self, connection: Connection, key: str, outcome: Outcome) -> Outcome:
        row = {
            "key": key,
            "submission_id": outcome.submission_id,
            "document_id": outcome.document_id,
            "outcome": _dump(outcome),
        }
        inserted = (
            insert(SUBMISSIONS).values(row).on_conflict_do_nothing(index_elements=["key"]).returning(SUBMISSIONS.c.key)
        )
        if connection.execute(inserted).scalar() is None:
            return self._find(connection, key) or outcome
        self._outbox.add(connection, *self._encode(outcome))
        return outcome

    def _find(self, connection: Connection, key: str) -> Outcome | None:
        kept = connection.execute(select(SUBMISSIONS.c.outcome).where(SUBMISSIONS.c.key == key)).scalar()
        return None if kept is None else _load(kept)


def _fields(refused: Refused) -> dict[str, Any]:
    return {name: getattr(refused, name) for name in refused.__dataclass_fields__}


def _dump(outcome: Outcome) -> str:
    return json.dumps(asdict(outcome), sort_keys=True)


def _load(kept: str) -> Outcome:
    content = json.loads(kept)
    content["labels"] = Labels(**content["labels"])
    if "reason" in content:
        return Refused(**{**content, "reason": RejectionReason(content["reason"])})
    # What was kept before spans were tells none.
    spans = tuple(Span(**{**span, "kind": SpanKind(span["kind"])}) for span in content.get("spans", ()))
    return Accepted(**{**content, "kind": Kind(content["kind"]), "text": Ref(**content["text"]), "spans": spans})
