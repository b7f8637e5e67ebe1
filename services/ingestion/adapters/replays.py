"""Replays in PostgreSQL."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, and_, func, insert, literal, select, text

from services.ingestion.adapters.references import ReferenceCipher
from services.ingestion.adapters.sql import SqlCatalogue
from services.ingestion.adapters.tables import DOCUMENTS, REPLAY_DOCUMENTS, REPLAYS, SUBMISSIONS
from services.ingestion.domain import Acceptance, ParsedText, SubmissionRecord, replayed_digest
from services.ingestion.replay_domain import Replay, ReplayDocument, ReplayOutcome, ReplayState
from services.ingestion.wire import make_receipt, supersede_id
from tailor.errors import FailedPrecondition, Reason
from tailor.rows import Rows
from tailor.sql import acquire_lock, transaction
from tailor.storage.ref import Ref

LOCK = 7_461_302


class SqlReplays:
    """Replays of the catalogue's documents. Safe for several replicas at once."""

    def __init__(self, engine: Engine, catalogue: SqlCatalogue, references: ReferenceCipher, digest_key: bytes) -> None:
        self._engine = engine
        self._catalogue = catalogue
        self._references = references
        self._digest_key = digest_key

    def start(self, replay_id: str, barrier: str, caller: str, *, all_documents: bool) -> Replay:
        """Begin a replay of the documents that passed under another barrier, or return the known one of this id.

        Raises FailedPrecondition (REPLAY_RUNNING).
        """
        with transaction(self._engine) as connection:
            acquire_lock(connection, LOCK)
            replays = _Replays(connection)
            known = replays.find(replay_id=replay_id)
            if known is not None:
                return known
            running = replays.find(state=ReplayState.RUNNING)
            if running is not None:
                raise FailedPrecondition(
                    Reason.REPLAY_RUNNING, f"{running.replay_id} is running. Wait until it ends, or cancel it."
                )
            replay = Replay(replay_id, barrier, ReplayState.RUNNING, datetime.now(UTC))
            replays.insert(replay, requested_by=caller[:128])
            chosen = and_(DOCUMENTS.c.digest.is_not(None), DOCUMENTS.c.erasure_id == "")
            if not all_documents:
                chosen = and_(chosen, DOCUMENTS.c.barrier != barrier)
            number = func.row_number().over(order_by=(DOCUMENTS.c.create_time, DOCUMENTS.c.document_id))
            documents = select(literal(replay_id), DOCUMENTS.c.document_id, number).where(chosen)
            columns = ["replay_id", "document_id", "number"]
            connection.execute(insert(REPLAY_DOCUMENTS).from_select(columns, documents))
            return replace(replay, documents=replays.documents.count(replay_id=replay_id))

    def find(self, replay_id: str) -> Replay | None:
        return _Replays(self._engine).find(replay_id=replay_id)

    def list(self, before: int | None, limit: int) -> Sequence[tuple[int, Replay]]:
        """Positions and replays, newest first."""
        return _Replays(self._engine).page(before, limit)

    def cancel(self, replay_id: str) -> None:
        """End a running replay; no effect on an ended one."""
        self._end(replay_id, ReplayState.CANCELLED)

    def documents(self, replay_id: str, outcome: str, after: int, limit: int) -> Sequence[tuple[int, str, str]]:
        """(number, document, outcome) after a number, in order; an empty `outcome` means all."""
        documents = _Replays(self._engine).documents
        with_outcome = {"outcome": outcome} if outcome else {}
        is_after, number = documents.c.number > after, documents.c.number
        rows = documents.all(is_after, replay_id=replay_id, order=number, limit=limit, **with_outcome)
        return [(row.number, row.document_id, row.outcome) for row in rows]

    @contextmanager
    def exclusive(self) -> Iterator[bool]:
        """Yields True if no other replica works on replays during the block."""
        # The database releases the lock if the process is killed.
        with transaction(self._engine) as connection:
            yield bool(connection.scalar(text("SELECT pg_try_advisory_xact_lock(:lock)"), {"lock": LOCK + 1}))

    def next_document(self) -> ReplayDocument | None:
        """The next document of the running replay. Ends a replay that has none left; None if nothing is left."""
        with transaction(self._engine) as connection:
            replay = _Replays(connection).find(state=ReplayState.RUNNING)
            if replay is None:
                return None
            documents, table = Rows(connection, DOCUMENTS, Row), REPLAY_DOCUMENTS.c
            query = documents.select(table.replay_id == replay.replay_id, table.outcome == "").add_columns(table.number)
            query = query.join(REPLAY_DOCUMENTS, table.document_id == documents.c.document_id).order_by(table.number)
            row = next(iter(documents.fetch(query.limit(1))), None)
            document = None if row is None else self._to_document(connection, replay, row)
        if document is None:
            self._end(replay.replay_id, ReplayState.DONE)
        return document

    def record(self, document: ReplayDocument, outcome: ReplayOutcome) -> None:
        """Store an outcome that sends nothing; ERASED instead if the document is. A document that has an outcome keeps it."""
        with transaction(self._engine) as connection:
            erased = Rows(connection, DOCUMENTS, Row).has(
                DOCUMENTS.c.erasure_id != "", document_id=document.document_id
            )
            _record(connection, document, ReplayOutcome.ERASED if erased else outcome)

    def send(
        self, document: ReplayDocument, parsed: ParsedText, outcome: ReplayOutcome, store: Callable[[str, int], Ref]
    ) -> ReplayOutcome:
        """Create a version with the document's own text, publish it and store the outcome, in one transaction.

        Returns the stored outcome: CURRENT or ERASED if the document changed meanwhile. Calls `store(document_id, sequence)` at most once.
        """
        with transaction(self._engine) as connection:
            documents, known = Rows(connection, DOCUMENTS, Row), document.acceptance
            row = documents.lock(document_id=document.document_id)
            if row is None or row.erasure_id or known is None or row.digest is None:
                outcome = ReplayOutcome.ERASED
            elif row.sequence != known.sequence or row.digest != document.digest:
                outcome = ReplayOutcome.CURRENT
            else:
                acceptance = self._accept(document, known, parsed, store)
                changed = {"sequence": acceptance.sequence, "barrier": document.barrier}
                documents.update(changed, document_id=document.document_id)
                receipt = make_receipt("replay", document.replay_id, document.document_id)
                self._catalogue.store(connection, receipt, acceptance)
            _record(connection, document, outcome)
        return outcome

    def _accept(
        self, document: ReplayDocument, known: Acceptance, parsed: ParsedText, store: Callable[[str, int], Ref]
    ) -> Acceptance:
        sequence = known.sequence + 1
        receipt = make_receipt("replay", document.replay_id, document.document_id)
        return replace(
            known,
            submission_id=receipt.submission_id,
            sequence=sequence,
            digest=replayed_digest(self._digest_key, document.digest, document.document_id, sequence),
            text=store(document.document_id, sequence),
            char_count=parsed.chars,
            time_ms=int(time.time() * 1000),
            spans=parsed.spans,
            supersede_id=supersede_id(document.replay_id, document.number),
        )

    def _to_document(self, connection: Connection, replay: Replay, row: Row[Any]) -> ReplayDocument:
        records = Rows(connection, SUBMISSIONS, SubmissionRecord).all(document_id=row.document_id)
        versions = (record.outcome for record in records if isinstance(record.outcome, Acceptance))
        newest = next((version for version in versions if version.sequence == row.sequence), None)
        reference = self._references.open(row.document_id, bytes(row.reference))
        return ReplayDocument(
            replay.replay_id, row.document_id, row.number, row.digest or "", replay.barrier, newest, reference
        )

    def _end(self, replay_id: str, state: ReplayState) -> None:
        ended = {"state": state, "end_time": datetime.now(UTC)}
        _Replays(self._engine).update(ended, replay_id=replay_id, state=ReplayState.RUNNING)


class _Replays(Rows[Replay]):
    """Replays with the counts of their documents."""

    def __init__(self, database: Engine | Connection) -> None:
        super().__init__(database, REPLAYS, Replay)
        self.documents = Rows(database, REPLAY_DOCUMENTS, Row)

    def read(self, row: Row[Any], **given: Any) -> Replay:
        outcome = self.documents.c.outcome
        query = select(outcome, func.count()).where(self.documents.c.replay_id == row.replay_id).group_by(outcome)
        with self._connect() as connection:
            counts: dict[str, int] = dict(connection.execute(query).all())
        outcomes = {outcome: count for outcome, count in counts.items() if outcome}
        return super().read(row, documents=sum(counts.values()), outcomes=outcomes, **given)


def _record(connection: Connection, document: ReplayDocument, outcome: ReplayOutcome) -> None:
    documents, ids = _Replays(connection).documents, {"document_id": document.document_id}
    documents.update({"outcome": outcome}, replay_id=document.replay_id, outcome="", **ids)
