"""Drafts that can be judged, and what experts decided about their prompts, in PostgreSQL."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from sqlalchemy import Connection, Row, func, select

from services.registry import wire
from services.registry.adapters import tables
from services.registry.domain import Draft, FactKind, Judgement
from services.registry.rules.expert_queue import ExpertDecision, StoredDraft
from tailor.api.events.v1 import drafts_pb2, models_pb2
from tailor.api.registry.v1.judging_pb2 import ListOwnJudgementsRequest
from tailor.codec import load
from tailor.listing import Listing, ListPage
from tailor.rows import Rows
from tailor.values import DatasetKind
from tailor.wire import to_datetime

DATASET_KINDS = {
    DatasetKind.SFT: models_pb2.DATASET_KIND_SFT,
    DatasetKind.PREFERENCE: models_pb2.DATASET_KIND_PREFERENCE,
}
# A decision can be taken back for minutes, in which few datasets are built.
NEWEST_DATASETS = 20


class SqlExpertDecisions(Rows[ExpertDecision]):
    """Drafts that experts can judge, and what experts decided about their prompts."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, tables.expert_decisions, ExpertDecision)
        self._connection = connection
        self._drafts = Rows(connection, tables.stored_drafts, Row, "create_time")

    def save_draft(self, draft: Draft) -> None:
        """Note a draft whose text is stored. Idempotent."""
        create_time = draft.create_time or datetime.now(UTC)
        Rows(self._connection, tables.stored_drafts, Draft).add(
            draft, is_callers=bool(draft.key_id), create_time=create_time
        )

    def forget_drawn_drafts(self, document_id: str) -> int:
        """Take the drafts whose prompts were drawn from a document out of the queue; the number of drafts."""
        return self._drafts.delete(self._drafts.c.drawn_from.contains([document_id]))

    def list_drafts(self, specialist: str, since: datetime, limit: int) -> Sequence[StoredDraft]:
        """The specialist's drafts whose texts are stored, newest first."""
        page = self._drafts.newest_first(limit, self._drafts.c.create_time > since, specialist=specialist)
        return [load(StoredDraft, row._asdict(), is_drawn=bool(row.drawn_from)) for row in page]

    def list_decisions(self, specialist: str, since: datetime) -> Sequence[ExpertDecision]:
        judgements = tables.judgements
        query = self.select(self.c.create_time > since, specialist=specialist).add_columns(judgements.c.payload)
        joined = query.outerjoin(judgements, judgements.c.judgement_id == self.c.judgement_id)
        return [_with_drafts(self.read(row), row.payload) for row in self._connection.execute(joined)]

    def record(self, expert_id: str, specialist: str, prompts: Collection[str], judgement_id: str = "") -> None:
        """Record that an expert judged prompts, or skipped them if there is no judgement. Idempotent."""
        terms = {"expert_id": expert_id, "specialist": specialist, "judgement_id": judgement_id}
        now = datetime.now(UTC)
        self.add_all({"prompt_digest": prompt, "create_time": now, **terms} for prompt in sorted(set(prompts)))

    def withdraw(self, decision: ExpertDecision) -> None:
        """Forget a decision, so that its prompts wait for the expert again."""
        # A judgement of several prompts has several rows.
        is_own = {"judgement_id": decision.judgement_id} if decision.judgement_id else {"position": decision.position}
        self.delete(expert_id=decision.expert_id, specialist=decision.specialist, **is_own)

    def has_dataset_since(self, specialist: str, time: datetime, kinds: Collection[DatasetKind]) -> bool:
        """True if a dataset of one of the kinds was built after this time."""
        facts = Rows(self._connection, tables.facts, Row)
        newest = facts.newest_first(NEWEST_DATASETS, kind=FactKind.DATASET, specialist=specialist)
        datasets = [models_pb2.DatasetBuilt.FromString(row.payload) for row in newest]
        wanted = {DATASET_KINDS[kind] for kind in kinds}
        return any(to_datetime(item.create_time) > time for item in datasets if item.kind in wanted)

    def list_own(self, request: ListOwnJudgementsRequest, expert_id: str) -> ListPage[Judgement]:
        """The judgements of an expert, newest first, each once."""
        decisions, judgements = tables.expert_decisions, tables.judgements
        position = func.max(decisions.c.position).label("position")
        experts_judgements = select(decisions.c.judgement_id, position).where(
            decisions.c.expert_id == expert_id,
            decisions.c.specialist == request.specialist,
            decisions.c.judgement_id != "",
        )
        grouped = experts_judgements.group_by(decisions.c.judgement_id).subquery()
        joined = grouped.join(judgements, judgements.c.judgement_id == grouped.c.judgement_id)
        query = select(judgements.c.payload).select_from(joined).where(~judgements.c.retracted)
        listing = Listing(self, request, grouped.c.position, descending=True)
        return listing.page(query, read=lambda row: wire.to_judgement(row.payload))


def _with_drafts(decision: ExpertDecision, judgement: drafts_pb2.JudgementRecorded | None) -> ExpertDecision:
    if judgement is None:
        return decision
    ranking, equal, places = tuple(judgement.ranking), tuple(judgement.equal_drafts), tuple(judgement.places)
    return replace(decision, ranking=ranking, equal=equal, places=places)
