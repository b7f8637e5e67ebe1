"""Replays in PostgreSQL."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, and_, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert

from services.ingestion.adapters.references import ReferenceCipher
from services.ingestion.adapters.sql import SqlCatalogue, load_outcome
from services.ingestion.adapters.tables import DOCUMENTS, JOBS, REPLAY_DOCUMENTS, REPLAYS, SUBMISSIONS
from services.ingestion.domain import Acceptance, ParsedText, replayed_digest
from services.ingestion.replay_domain import Replay, ReplayDocument, ReplayOutcome, ReplayState
from services.ingestion.wire import make_receipt, supersede_id
from tailor.errors import FailedPrecondition, Reason
from tailor.jobs import HeldJob, add_job, drop_job
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
            row = {
                "replay_id": replay_id,
                "barrier": barrier,
                "state": ReplayState.RUNNING,
                "requested_by": caller[:128],
                "create_time": datetime.now(UTC),
            }
            new = insert(REPLAYS).values(row).on_conflict_do_nothing().returning(REPLAYS)
            started = connection.execute(new).one_or_none()
            if started is None:
                return self._known(connection, replay_id)
            chosen = and_(DOCUMENTS.c.digest.is_not(None), DOCUMENTS.c.erasure_id == "")
            if not all_documents:
                chosen = and_(chosen, DOCUMENTS.c.barrier != barrier)
            number = func.row_number().over(order_by=(DOCUMENTS.c.create_time, DOCUMENTS.c.document_id))
            documents = select(literal(replay_id), DOCUMENTS.c.document_id, number).where(chosen)
            columns = ["replay_id", "document_id", "number"]
            connection.execute(insert(REPLAY_DOCUMENTS).from_select(columns, documents))
            add_job(connection, JOBS, REPLAY, replay_id)
            return _to_replay(started, _count(connection, replay_id))

    def find(self, replay_id: str) -> Replay | None:
        with transaction(self._engine) as connection:
            return self._find(connection, replay_id)

    def list(self, before: int | None, limit: int) -> Sequence[tuple[int, Replay]]:
        """Positions and replays, newest first."""
        query = select(REPLAYS).order_by(REPLAYS.c.position.desc()).limit(limit)
        if before is not None:
            query = query.where(REPLAYS.c.position < before)
        with transaction(self._engine) as connection:
            rows = connection.execute(query).all()
            return [(row.position, _to_replay(row, _count(connection, row.replay_id))) for row in rows]

    def cancel(self, replay_id: str) -> None:
        """End a running replay; no effect on an ended one."""
        with transaction(self._engine) as connection:
            drop_job(connection, JOBS, REPLAY, replay_id)
            _end(connection, replay_id, ReplayState.CANCELLED)

    def documents(self, replay_id: str, outcome: str, after: int, limit: int) -> Sequence[tuple[int, str, str]]:
        """(number, document, outcome) after a number, in order; an empty `outcome` means all."""
        table = REPLAY_DOCUMENTS.c
        query = select(table.number, table.document_id, table.outcome).where(
            table.replay_id == replay_id, table.number > after
        )
        if outcome:
            query = query.where(table.outcome == outcome)
        with transaction(self._engine) as connection:
            return [tuple(row) for row in connection.execute(query.order_by(table.number).limit(limit))]

    def next_document(self, job: HeldJob) -> ReplayDocument | None:
        """The next document of the job's replay; None if none is left, which ends the replay. Raises JobLost."""
        with transaction(self._engine) as connection:
            job.check(connection)
            replay = connection.execute(select(REPLAYS).where(REPLAYS.c.replay_id == job.key)).one()
            table = REPLAY_DOCUMENTS.c
            query = (
                select(DOCUMENTS, table.number)
                .join(REPLAY_DOCUMENTS, table.document_id == DOCUMENTS.c.document_id)
                .where(table.replay_id == replay.replay_id, table.outcome == "")
                .order_by(table.number)
                .limit(1)
            )
            row = connection.execute(query).one_or_none()
            if row is None:
                _end(connection, job.key, ReplayState.DONE)
                return None
            return self._to_document(connection, replay, row)

    def record(self, job: HeldJob, document: ReplayDocument, outcome: ReplayOutcome) -> None:
        """Store an outcome that sends nothing; ERASED instead if the document is. One that has an outcome keeps it. Raises JobLost."""
        is_own = DOCUMENTS.c.document_id == document.document_id
        with transaction(self._engine) as connection:
            job.check(connection)
            erasure_id = connection.scalar(select(DOCUMENTS.c.erasure_id).where(is_own))
            self._record(connection, document, ReplayOutcome.ERASED if erasure_id else outcome)

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
            query = select(DOCUMENTS).where(DOCUMENTS.c.document_id == document.document_id).with_for_update()
            row = connection.execute(query).one()
            known = document.acceptance
            if row.erasure_id or known is None or row.digest is None:
                outcome = ReplayOutcome.ERASED
            elif row.sequence != known.sequence or row.digest != document.digest:
                outcome = ReplayOutcome.CURRENT
            else:
                acceptance = self._accept(document, known, parsed, store)
                changed = {"sequence": acceptance.sequence, "barrier": document.barrier}
                is_own = DOCUMENTS.c.document_id == document.document_id
                connection.execute(update(DOCUMENTS).where(is_own).values(changed))
                receipt = make_receipt("replay", document.replay_id, document.document_id)
                self._catalogue.store(connection, receipt, acceptance)
            self._record(connection, document, outcome)
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

    def _to_document(self, connection: Connection, replay: Row[Any], row: Row[Any]) -> ReplayDocument:
        outcomes = connection.scalars(select(SUBMISSIONS.c.outcome).where(SUBMISSIONS.c.document_id == row.document_id))
        versions = (load_outcome(outcome) for outcome in outcomes)
        newest = next((v for v in versions if isinstance(v, Acceptance) and v.sequence == row.sequence), None)
        reference = self._references.open(row.document_id, bytes(row.reference))
        return ReplayDocument(
            replay.replay_id, row.document_id, row.number, row.digest or "", replay.barrier, newest, reference
        )

    def _record(self, connection: Connection, document: ReplayDocument, outcome: ReplayOutcome) -> None:
        table = REPLAY_DOCUMENTS.c
        is_own = and_(table.replay_id == document.replay_id, table.document_id == document.document_id)
        connection.execute(update(REPLAY_DOCUMENTS).where(is_own, table.outcome == "").values(outcome=outcome))

    def _known(self, connection: Connection, replay_id: str) -> Replay:
        known = self._find(connection, replay_id)
        if known is None:
            running = connection.scalar(select(REPLAYS.c.replay_id).where(REPLAYS.c.state == ReplayState.RUNNING))
            message = f"{running or 'Another replay'} is running. Wait until it ends, or cancel it."
            raise FailedPrecondition(Reason.REPLAY_RUNNING, message)
        return known

    def _find(self, connection: Connection, replay_id: str) -> Replay | None:
        row = connection.execute(select(REPLAYS).where(REPLAYS.c.replay_id == replay_id)).one_or_none()
        return None if row is None else _to_replay(row, _count(connection, replay_id))


def _end(connection: Connection, replay_id: str, state: ReplayState) -> None:
    is_own = and_(REPLAYS.c.replay_id == replay_id, REPLAYS.c.state == ReplayState.RUNNING)
    connection.execute(update(REPLAYS).where(is_own).values(state=state, end_time=datetime.now(UTC)))


def _count(connection: Connection, replay_id: str) -> dict[str, int]:
    table = REPLAY_DOCUMENTS.c
    query = select(table.outcome, func.count()).where(table.replay_id == replay_id).group_by(table.outcome)
    return dict(connection.execute(query).all())


def _to_replay(row: Row[Any], counts: dict[str, int]) -> Replay:
    return Replay(
        replay_id=row.replay_id,
        barrier=row.barrier,
        state=ReplayState(row.state),
        create_time=row.create_time,
        end_time=row.end_time,
        documents=sum(counts.values()),
        outcomes={outcome: count for outcome, count in counts.items() if outcome},
    )
