"""What was drawn for experts, in PostgreSQL."""

from collections.abc import Sequence
from contextlib import AbstractContextManager

from sqlalchemy import Engine, func, select

from services.synthetic.adapters import tables
from services.synthetic.adapters.conditions import is_one_of
from services.synthetic.adapters.locks import session_lock
from services.synthetic.domain import DrawnPrompt
from tailor.rows import Rows
from tailor.sql import transaction


class SqlDrawnPrompts:
    """The prompts that were drawn for the experts of each specialist. Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._prompts = Rows(engine, tables.drawn_prompts, DrawnPrompt)

    def drawing(self, specialist: str) -> AbstractContextManager[bool]:
        """Hold the specialist's drawing lock without a transaction; yields False at once if another thread or replica holds it."""
        return session_lock(self._engine, f"drawing:{specialist}")

    def count(self, specialist: str) -> int:
        return self._prompts.count(specialist=specialist)

    def find_drawn(self, specialist: str, digests: Sequence[str]) -> set[str]:
        """Those of the prompts' digests that were drawn."""
        digest = self._prompts.c.prompt_digest
        return {*self._prompts.values(digest, specialist=specialist, prompt_digest=digests)}

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
        self._prompts.add(prompt, specialist=specialist, prompt_digest=prompt.digest)
