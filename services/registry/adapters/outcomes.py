"""What drafts were worth, in PostgreSQL."""

from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, Connection, case, delete, select
from sqlalchemy.dialects.postgresql import insert

from services.registry.adapters import tables
from services.registry.outcome_domain import DraftOutcome, FinalText
from services.registry.ports import Outcomes


class SqlOutcomes(Outcomes):
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def save(self, outcome: DraftOutcome) -> None:
        row = asdict(outcome)
        statement = insert(tables.outcomes).values(row)
        changed = {name: statement.excluded[name] for name in row if name != "outcome_id"}
        self._connection.execute(statement.on_conflict_do_update(index_elements=["outcome_id"], set_=changed))

    def save_final_text(self, final: FinalText) -> None:
        table, row = tables.final_texts, asdict(final)
        statement = insert(table).values(row)
        changed: dict[str, ColumnElement[Any]] = {name: statement.excluded[name] for name in row if name != "draft_id"}
        # A replay of the policy publishes a deliverable again, which is not made in another week for that.
        again = (table.c.document_id != "") & (table.c.document_id == statement.excluded.document_id)
        changed["create_time"] = case((again, table.c.create_time), else_=statement.excluded.create_time)
        counts_more = (statement.excluded.document_id != "") | (table.c.document_id == "")
        self._connection.execute(
            statement.on_conflict_do_update(index_elements=["draft_id"], set_=changed, where=counts_more)
        )


def forget_outcomes(connection: Connection, document_id: str) -> int:
    """Delete what is stored about the drafts that an erased deliverable was made from; the number of entries."""
    outcomes, final_texts = tables.outcomes, tables.final_texts
    drafts = select(final_texts.c.draft_id).where(final_texts.c.document_id == document_id)
    reported = connection.execute(delete(outcomes).where(outcomes.c.draft_id.in_(drafts))).rowcount
    return reported + connection.execute(delete(final_texts).where(final_texts.c.document_id == document_id)).rowcount
