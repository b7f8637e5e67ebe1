"""What was drawn for experts, in PostgreSQL."""

from collections.abc import Sequence
from contextlib import AbstractContextManager

from sqlalchemy import Engine, func, select
from sqlalchemy.dialects.postgresql import insert

from services.synthetic.adapters import tables
from services.synthetic.adapters.conditions import is_one_of
from services.synthetic.adapters.locks import session_lock
from services.synthetic.domain import DrawnPrompt
from tailor.sql import transaction


class SqlDrawnPrompts:
    """The prompts that were drawn for the experts of each specialist. Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def drawing(self, specialist: str) -> AbstractContextManager[bool]:
        """Hold the specialist's drawing lock without a transaction; yields False at once if another thread or replica holds it."""
        return session_lock(self._engine, f"drawing:{specialist}")

    def count(self, specialist: str) -> int:
        table = tables.drawn_prompts
        query = select(func.count()).select_from(table).where(table.c.specialist == specialist)
        with transaction(self._engine) as connection:
            return connection.scalar(query) or 0

    def find_drawn(self, specialist: str, digests: Sequence[str]) -> set[str]:
        """Those of the prompts' digests that were drawn."""
        table = tables.drawn_prompts.c
        query = select(table.prompt_digest).where(
            table.specialist == specialist, is_one_of(table.prompt_digest, digests)
        )
        with transaction(self._engine) as connection:
            return set(connection.scalars(query))

    def count_documents(self, specialist: str, document_ids: Sequence[str]) -> dict[str, int]:
        """How often each document was drawn from; without those that never were."""
        table = tables.drawn_prompts.c
        names = select(func.unnest(table.document_ids).label("document_id")).where(table.specialist == specialist)
        drawn = names.subquery().c
        query = select(drawn.document_id, func.count()).where(is_one_of(drawn.document_id, document_ids))
        with transaction(self._engine) as connection:
            return dict(connection.execute(query.group_by(drawn.document_id)).all())

    def count_tasks(self, specialist: str) -> dict[str, int]:
        """How often prompts of each task were drawn."""
        table = tables.drawn_prompts.c
        query = select(table.task, func.count()).where(table.specialist == specialist).group_by(table.task)
        with transaction(self._engine) as connection:
            return dict(connection.execute(query).all())

    def keep(self, specialist: str, prompt: DrawnPrompt) -> None:
        """Remember that a prompt was drawn. Idempotent."""
        row = {
            "specialist": specialist,
            "prompt_digest": prompt.digest,
            "task": prompt.task,
            "document_ids": [*prompt.document_ids],
        }
        with transaction(self._engine) as connection:
            connection.execute(insert(tables.drawn_prompts).values(row).on_conflict_do_nothing())
