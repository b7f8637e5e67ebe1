"""What is forgotten of evaluations in PostgreSQL."""

from collections.abc import Sequence

from sqlalchemy import Engine, delete, select, update

from services.evaluation.adapters import tables
from services.evaluation.adapters.sql import OPEN
from services.evaluation.domain import State
from tailor.sql import transaction


class SqlHoldings:
    """Satisfies `erasures.Holdings`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def evaluations_on(self, datasets: Sequence[str]) -> list[str]:
        """Ids of the evaluations of adapters that were trained on the datasets."""
        evaluations, adapters = tables.evaluations, tables.adapters
        join = evaluations.join(adapters, evaluations.c.adapter_digest == adapters.c.digest)
        query = select(evaluations.c.evaluation_id).select_from(join).where(adapters.c.dataset_digest.in_(datasets))
        with transaction(self._engine) as connection:
            return sorted(connection.scalars(query))

    def drop_results(self, evaluation_id: str) -> int:
        """Drop what models answered and scored."""
        gone = delete(tables.results).where(tables.results.c.evaluation_id == evaluation_id)
        with transaction(self._engine) as connection:
            return connection.execute(gone).rowcount

    def fail_open(self, evaluation_id: str, reason: str) -> None:
        """An evaluation that is not finished cannot be made."""
        table = tables.evaluations
        mine = (table.c.evaluation_id == evaluation_id, table.c.state.in_(OPEN))
        with transaction(self._engine) as connection:
            connection.execute(update(table).where(*mine).values(state=State.FAILED.value, reason=reason))
