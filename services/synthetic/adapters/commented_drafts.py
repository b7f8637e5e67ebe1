"""Drafts that experts commented on, in PostgreSQL and the datasets bucket."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, Select, and_, func, select

from services.synthetic.adapters import tables
from services.synthetic.adapters.conditions import age_of, is_one_of
from services.synthetic.adapters.locks import session_lock
from services.synthetic.adapters.tables import syntheses, synthesis_rows
from services.synthetic.datasets import read_draft
from services.synthetic.domain import CRITIQUE, Judgement, KeptDraft, Specialist
from services.synthetic.synthesis_domain import (
    OPEN_STATES,
    CommentCounts,
    CommentedDraft,
    ModelRole,
    MonthOfCritiques,
    SampleState,
    Synthesis,
)
from tailor.errors import Reason
from tailor.rounds import is_held_out
from tailor.rows import Rows
from tailor.sql import transaction
from tailor.storage.protocol import ObjectStore

WAITING, RUNNING, HELD_OUT, WITHOUT_TEXTS = "waiting", "running", "held_out", "without_texts"
FATES = ("accepted", "pending", "rejected", RUNNING, WAITING, HELD_OUT, WITHOUT_TEXTS)


class _Comment(NamedTuple):
    """A comment with what became of it: a sample's state, with the reason of a refusal, or one of the names above."""

    judgement: Judgement
    age: float
    fate: str
    reason: str = ""


class SqlCommentedDrafts:
    """Drafts that experts commented on, with texts that are stored, and what became of the comments. Thread-safe."""

    def __init__(self, engine: Engine, store: ObjectStore) -> None:
        self._engine = engine
        self._store = store

    def count(self, specialist: Specialist) -> CommentCounts:
        """Count the comments of the specialist's judgements."""
        with transaction(self._engine) as connection:
            comments = list(_read_comments(connection, specialist, _comments(specialist.name)))
        fates = Counter(comment.fate for comment in comments)
        refused = Counter(comment.reason for comment in comments if comment.fate == SampleState.REFUSED)
        counts: dict[str, Any] = {name: fates[name] for name in FATES}
        return CommentCounts(refusals=dict(refused), **counts)

    def choose(self, specialist: Specialist, limit: int) -> list[str]:
        """Ids of judgements whose comments wait, oldest first."""
        return [comment.judgement.judgement_id for comment in self._waiting(specialist)][:limit]

    def ages(self, specialist: Specialist) -> tuple[float, float] | None:
        """The seconds since the oldest and the newest comment that waits arrived; None if none waits."""
        ages = [comment.age for comment in self._waiting(specialist)]
        return (max(ages), min(ages)) if ages else None

    def _waiting(self, specialist: Specialist) -> list[_Comment]:
        query = _comments(specialist.name).where(synthesis_rows.c.judgement_id.is_(None))
        with transaction(self._engine) as connection:
            comments = _read_comments(connection, specialist, query)
            return [comment for comment in comments if comment.fate == WAITING]

    def read(self, specialist: Specialist, judgement_ids: Sequence[str]) -> dict[int, CommentedDraft]:
        """The drafts with their comments, by the place of the judgement, without those that can no longer be read. Blocks."""
        query = _comments(specialist.name).where(is_one_of(tables.judgements.c.judgement_id, judgement_ids))
        with transaction(self._engine) as connection:
            judgements = Rows(connection, tables.judgements, Judgement).fetch(query)
            drafts = _find_drafts(connection, specialist.name, judgements)
        by_id = {judgement.judgement_id: judgement for judgement in judgements if _has_texts(judgement, drafts)}
        known = {}
        for number, judgement_id in enumerate(judgement_ids):
            judgement = by_id.get(judgement_id)
            draft = read_draft(self._store, drafts[judgement.drafts[0]]) if judgement else None
            if judgement is not None and draft is not None:
                known[number] = CommentedDraft(judgement_id, judgement.comment, draft)
        return known

    def month(self, specialist: str) -> MonthOfCritiques:
        """The critiques of this calendar month (UTC)."""
        table = syntheses.c
        # Both sides are times without a zone, in UTC.
        begin = func.date_trunc("month", func.timezone("UTC", func.clock_timestamp()))
        is_of_month = (func.timezone("UTC", table.created_at) >= begin, _is_critique(specialist))
        with transaction(self._engine) as connection:
            critiques = Rows(connection, syntheses, Synthesis)
            known = critiques.all(*is_of_month, order=table.created_at)
            age = critiques.value(age_of(func.max(table.created_at)), *is_of_month)
        left_over = None
        if known and known[-1].reason == Reason.BUDGET_SPENT:
            left_over = known[-1].spec.budget_tokens - _count_spent(known[-1])
        return MonthOfCritiques(sum(map(_count_tokens, known)), left_over, float(age) if known else None)

    def starting(self, specialist: str) -> AbstractContextManager[bool]:
        """Hold the lock under which critiques start; yields False at once if another replica holds it."""
        return session_lock(self._engine, f"critiques:{specialist}")


def _comments(specialist: str) -> Select[Any]:
    """The judgements with a comment, oldest first, with the state of the row that answers it."""
    judgements, rows = tables.judgements, synthesis_rows.c
    join = judgements.outerjoin(synthesis_rows, judgements.c.judgement_id == rows.judgement_id)
    age = age_of(judgements.c.changed_at).label("age")
    query = select(judgements, age, rows.state.label("state"), rows.reason.label("reason")).select_from(join)
    is_commented = and_(judgements.c.specialist == specialist, judgements.c.comment != "")
    return query.where(is_commented).order_by(judgements.c.position)


def _read_comments(connection: Connection, specialist: Specialist, query: Select[Any]) -> Iterator[_Comment]:
    judgements = Rows(connection, tables.judgements, Judgement)
    rows = [(judgements.read(row), row) for row in connection.execute(query)]
    drafts = _find_drafts(connection, specialist.name, [judgement for judgement, row in rows if row.state is None])
    running = _find_running(connection, specialist.name)
    percent = specialist.rows.held_out_percent
    for judgement, row in rows:
        fate = row.state or _find_fate(judgement, drafts, running, percent)
        yield _Comment(judgement, float(row.age), fate, row.reason or "")


def _find_fate(judgement: Judgement, drafts: dict[str, KeptDraft], running: set[str], percent: int) -> str:
    if judgement.judgement_id in running:
        return RUNNING
    if not _has_texts(judgement, drafts):
        return WITHOUT_TEXTS
    return HELD_OUT if is_held_out(drafts[judgement.drafts[0]].prompt_digest, percent) else WAITING


def _has_texts(judgement: Judgement, drafts: dict[str, KeptDraft]) -> bool:
    """True if the texts of all its drafts are stored: those of the base never are, which leaves out comparisons with the base."""
    return bool(judgement.drafts) and all(key in drafts for key in judgement.drafts)


def _find_drafts(connection: Connection, specialist: str, judgements: Sequence[Judgement]) -> dict[str, KeptDraft]:
    keys = {key for judgement in judgements for key in judgement.drafts}
    drafts = Rows(connection, tables.drafts, KeptDraft).all(specialist=specialist, saved=True, draft_id=keys)
    return {draft.draft_id: draft for draft in drafts}


def _find_running(connection: Connection, specialist: str) -> set[str]:
    """The judgements of syntheses that have not ended."""
    table = syntheses.c
    query = select(table.spec["judgement_ids"]).where(_is_critique(specialist), table.state.in_(OPEN_STATES))
    return {key for keys in connection.scalars(query) for key in keys}


def _is_critique(specialist: str) -> Any:
    return and_(syntheses.c.specialist == specialist, syntheses.c.spec["task"].astext == CRITIQUE)


def _count_tokens(synthesis: Synthesis) -> int:
    """Tokens that a synthesis took; until it ends, its whole budget, or what is reserved if that is in EUR only."""
    spent = _count_spent(synthesis)
    reserved = sum(synthesis.use.of(role).reserved.total for role in ModelRole)
    return spent if synthesis.state.has_ended else max(synthesis.spec.budget_tokens, spent + reserved)


def _count_spent(synthesis: Synthesis) -> int:
    return sum(synthesis.use.of(role).spent.total for role in ModelRole)
