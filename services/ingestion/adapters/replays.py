"""Replays in PostgreSQL."""

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, and_, func, insert, literal, select

from services.ingestion.adapters.references import ReferenceCipher
from services.ingestion.adapters.sql import SqlCatalogue
from services.ingestion.adapters.tables import DOCUMENTS, JOBS, REPLAY_DOCUMENTS, REPLAYS, SUBMISSIONS
from services.ingestion.domain import Acceptance, ParsedText, SubmissionRecord, replayed_digest
from services.ingestion.replay_domain import Replay, ReplayDocument, ReplayOutcome, ReplayState
from services.ingestion.wire import make_receipt, supersede_id
from tailor.api.ingestion.v1.replay_pb2 import ListReplayDocumentsRequest, ListReplaysRequest
from tailor.api.ingestion.v1.replay_pb2 import ReplayDocument as ReplayDocumentMessage
from tailor.errors import FailedPrecondition, Reason
from tailor.jobs import HeldJob, add_job, drop_job
from tailor.listing import Listing, ListPage
from tailor.rows import Rows
from tailor.sql import transaction
from tailor.storage.ref import Ref

# The kind of jobs whose keys are ids of replays.
REPLAY = "replay"


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
            replays = _Replays(connection)
            replay = Replay(replay_id, barrier, ReplayState.RUNNING, datetime.now(UTC))
            if not replays.add(replay, requested_by=caller[:128]):
                return _known(replays, replay_id)
            chosen = and_(DOCUMENTS.c.digest.is_not(None), DOCUMENTS.c.erasure_id == "")
            if not all_documents:
                chosen = and_(chosen, DOCUMENTS.c.barrier != barrier)
            number = func.row_number().over(order_by=(DOCUMENTS.c.create_time, DOCUMENTS.c.document_id))
            documents = select(literal(replay_id), DOCUMENTS.c.document_id, number).where(chosen)
            columns = ["replay_id", "document_id", "number"]
            connection.execute(insert(REPLAY_DOCUMENTS).from_select(columns, documents))
            add_job(connection, JOBS, REPLAY, replay_id)
            return replace(replay, documents=replays.documents.count(replay_id=replay_id))

    def find(self, replay_id: str) -> Replay | None:
        return _Replays(self._engine).find(replay_id=replay_id)

    def list(self, request: ListReplaysRequest) -> ListPage[Replay]:
        """Replays, newest first."""
        replays = _Replays(self._engine)
        columns = {"barrier_digest": replays.c.barrier}
        listing = Listing(replays, request, replays.c.position, descending=True, columns=columns)
        return listing.page(replays.select())

    def cancel(self, replay_id: str) -> None:
        """End a running replay; no effect on an ended one."""
        with transaction(self._engine) as connection:
            drop_job(connection, JOBS, REPLAY, replay_id)
            _end(_Replays(connection), replay_id, ReplayState.CANCELLED)

    def list_documents(self, request: ListReplayDocumentsRequest) -> ListPage[ReplayDocumentMessage]:
        """A replay's documents in order; an empty outcome means all."""
        documents = Rows(self._engine, REPLAY_DOCUMENTS, ReplayDocumentMessage)
        with_outcome = {"outcome": request.outcome} if request.outcome else {}
        query = documents.select(replay_id=request.replay_id, **with_outcome)
        return Listing(documents, request, documents.c.number).page(query, size=(200, 1_000))

    def next_document(self, job: HeldJob) -> ReplayDocument | None:
        """The next document of the job's replay; None if none is left, which ends the replay. Raises JobLost."""
        with transaction(self._engine) as connection:
            job.check(connection)
            replays, documents, table = _Replays(connection), Rows(connection, DOCUMENTS, Row), REPLAY_DOCUMENTS.c
            query = documents.select(table.replay_id == job.key, table.outcome == "").add_columns(table.number)
            query = query.join(REPLAY_DOCUMENTS, table.document_id == documents.c.document_id).order_by(table.number)
            row, replay = next(iter(documents.fetch(query.limit(1))), None), replays.find(replay_id=job.key)
            if row is None or replay is None:
                _end(replays, job.key, ReplayState.DONE)
                return None
            return self._to_document(connection, replay, row)

    def record(self, job: HeldJob, document: ReplayDocument, outcome: ReplayOutcome) -> None:
        """Store an outcome that sends nothing; ERASED instead if the document is. One that has an outcome keeps it. Raises JobLost."""
        with transaction(self._engine) as connection:
            job.check(connection)
            documents = Rows(connection, DOCUMENTS, Row)
            is_erased = documents.has(documents.c.erasure_id != "", document_id=document.document_id)
            _record(connection, document, ReplayOutcome.ERASED if is_erased else outcome)

    def send(
        self,
        job: HeldJob,
        document: ReplayDocument,
        parsed: ParsedText,
        outcome: ReplayOutcome,
        store: Callable[[str, int], Ref],
    ) -> ReplayOutcome:
        """Create a version with the document's own text, publish it and store the outcome, in one transaction.

        Returns the stored outcome: CURRENT or ERASED if the document changed meanwhile. Calls `store(document_id, sequence)` at most once.
        Raises JobLost.
        """
        with transaction(self._engine) as connection:
            job.check(connection)
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


def _known(replays: _Replays, replay_id: str) -> Replay:
    """The replay of an id; raises FailedPrecondition (REPLAY_RUNNING) if another one keeps it from starting."""
    known = replays.find(replay_id=replay_id)
    if known is None:
        running = replays.value(replays.c.replay_id, state=ReplayState.RUNNING)
        raise FailedPrecondition(
            Reason.REPLAY_RUNNING, f"{running or 'Another replay'} is running. Wait until it ends, or cancel it."
        )
    return known


def _end(replays: _Replays, replay_id: str, state: ReplayState) -> None:
    ended = {"state": state, "end_time": datetime.now(UTC)}
    replays.update(ended, replay_id=replay_id, state=ReplayState.RUNNING)


def _record(connection: Connection, document: ReplayDocument, outcome: ReplayOutcome) -> None:
    documents, ids = _Replays(connection).documents, {"document_id": document.document_id}
    documents.update({"outcome": outcome}, replay_id=document.replay_id, outcome="", **ids)
