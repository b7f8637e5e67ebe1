"""Rows of syntheses in PostgreSQL: those that join datasets, and erasing what was made from a document."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, and_, any_, delete, func, or_, select, text
from sqlalchemy.dialects.postgresql import distinct_on

from services.synthetic.adapters import tables
from services.synthetic.adapters.conditions import read_sides
from services.synthetic.adapters.tables import jobs, syntheses, synthesis_answers, synthesis_rows
from services.synthetic.domain import CRITIQUE, Revision, Row, RowOrigin, Specialist
from services.synthetic.domain import fingerprint as digest_of
from services.synthetic.ports import ExtraRows, TokenCounter, Tokenizers
from services.synthetic.rows.budget import count_tokens
from services.synthetic.synthesis_domain import DRAFT_ID, SampleState, SynthesisUse
from tailor.codec import load
from tailor.jobs import revoke_jobs
from tailor.rounds import is_held_out
from tailor.sql import transaction

# The kind of jobs whose keys are ids of syntheses.
SYNTHESIS = "synthesis"
STREAMED_ROWS = 500

# The others keep their places, by which lineages name them.
EMPTY_EXAMPLE = text(
    """
    UPDATE syntheses SET spec = jsonb_set(spec, '{examples}', (
        SELECT jsonb_agg(CASE WHEN entry ->> 'document_id' = :id THEN CAST(:empty AS jsonb) ELSE entry END ORDER BY number)
        FROM jsonb_array_elements(spec -> 'examples') WITH ORDINALITY AS entries (entry, number)
    ))
    WHERE spec -> 'examples' @> CAST(:wanted AS jsonb)
    """
).bindparams(empty=json.dumps({"prompt": "", "answer": "", "document_id": ""}))


class SqlSynthesisRows(ExtraRows):
    """Accepted rows of syntheses, without those of held-out documents and prompts. Thread-safe."""

    def __init__(self, engine: Engine, tokenizers: Tokenizers) -> None:
        self._engine = engine
        self._tokenizers = tokenizers

    def rows(self, specialist: Specialist, on_unreadable: Callable[[int], None] = lambda rows: None) -> Iterator[Row]:
        """Each once, with the specialist's system prompt of now, and its tokens by the base's tokenizer."""
        table = synthesis_rows.c
        query = select(table.row_id, table.row).where(_is_accepted(specialist.name)).order_by(table.row_id)
        query = query.ext(distinct_on(table.row_id))
        with transaction(self._engine) as connection:
            stream = connection.execution_options(yield_per=STREAMED_ROWS).execute(query)
            for part in stream.partitions(STREAMED_ROWS):
                counter = self._tokenizers.for_base(specialist.base)
                yield from _complete(self._drop_held_out(specialist, part), specialist, counter)

    def _drop_held_out(self, specialist: Specialist, part: Sequence[Any]) -> list[Row]:
        """Those that were made from no held-out document or prompt: a seed may have got its side after the synthesis."""
        rows = [load(Row, row.row) for row in part]
        document_ids = sorted({document_id for row in rows for document_id in row.document_ids})
        with transaction(self._engine) as connection:
            sides = read_sides(connection, specialist.name, document_ids)
        percent = specialist.rows.held_out_percent
        return [
            row
            for row in rows
            if not any(sides.get(document_id) for document_id in row.document_ids)
            and not (row.task == CRITIQUE and is_held_out(dict(row.lineage)["seeds"], percent))
        ]

    def fingerprint(self, specialist: Specialist) -> str:
        """Of the number of rows and the sum of hashes of their ids, so that it costs one pass and no memory."""
        table = synthesis_rows.c
        hash_sum = func.sum(func.hashtextextended(table.row_id, 0))
        query = select(func.count(), func.coalesce(hash_sum, 0)).where(_is_accepted(specialist.name))
        with transaction(self._engine) as connection:
            return digest_of("syntheses", *connection.execute(query).one())

    def origin(self, specialist: Specialist) -> RowOrigin:
        """The tokens that the teacher spent on the syntheses with accepted rows, on other rows of theirs too."""
        accepted = select(synthesis_rows.c.synthesis_id).where(_is_accepted(specialist.name))
        query = select(syntheses.c.use).where(syntheses.c.synthesis_id.in_(accepted))
        with transaction(self._engine) as connection:
            uses = [load(SynthesisUse, use) for use in connection.scalars(query)]
            adapters = frozenset(connection.scalars(_revised_adapters(specialist.name)))
        return RowOrigin(teacher_tokens=sum(use.teacher.spent.total for use in uses), draft_adapters=adapters)


def _revised_adapters(specialist: str) -> Any:
    """The adapters whose drafts the specialist's accepted critiques revise, without the base."""
    drafts, rows = tables.drafts.c, synthesis_rows.c
    join = tables.drafts.join(synthesis_rows, drafts.draft_id == any_(rows.document_ids))
    query = select(drafts.adapter_digest).distinct().select_from(join)
    conditions = (_is_accepted(specialist), rows.judgement_id != "", drafts.adapter_digest != "")
    return query.where(*conditions)


def _is_accepted(specialist: str) -> ColumnElement[bool]:
    table = synthesis_rows.c
    return and_(table.specialist == specialist, table.state == SampleState.ACCEPTED.value)


def _complete(rows: Sequence[Row], specialist: Specialist, counter: TokenCounter) -> Iterator[Row]:
    """Add the specialist's system prompt, unless the row has another one, and the tokens."""
    return count_tokens(
        [replace(row, system_prompt=row.system_prompt or specialist.system_prompt) for row in rows], counter
    )


def forget_seed(connection: Connection, document_id: str) -> int:
    """Delete the answers and rows whose seed was the document or example, and take it from the seeds; returns the number of rows.

    A run that still has the document in memory loses its job, so that it stores nothing more; another one reads the seeds again.
    `SqlHoldings.forget_document` calls it in its transaction.
    """
    spec = syntheses.c.spec
    may_know = or_(spec["document_ids"].has_key(document_id), spec["examples"].contains([{"document_id": document_id}]))
    revoke_jobs(connection, jobs, SYNTHESIS, select(syntheses.c.synthesis_id).where(may_know))
    seeds = text(
        "UPDATE syntheses SET spec = jsonb_set(spec, '{document_ids}', (spec -> 'document_ids') - CAST(:id AS text)) "
        "WHERE spec -> 'document_ids' ? :id"
    )
    connection.execute(seeds, {"id": document_id})
    connection.execute(EMPTY_EXAMPLE, {"id": document_id, "wanted": json.dumps([{"document_id": document_id}])})
    return forget_seed_rows(connection, document_id)


def forget_seed_rows(connection: Connection, document_id: str) -> int:
    """Delete the answers and rows that were written from a document or example; returns the number of rows."""
    connection.execute(delete(synthesis_answers).where(synthesis_answers.c.document_ids.contains([document_id])))
    return connection.execute(
        delete(synthesis_rows).where(synthesis_rows.c.document_ids.contains([document_id]))
    ).rowcount


def find_revisions(connection: Connection, specialist: str) -> tuple[Revision, ...]:
    """The specialist's accepted revisions of drafts, by judgement."""
    table = synthesis_rows.c
    query = select(table.judgement_id, table.row).where(_is_accepted(specialist), table.judgement_id != "")
    rows = [(key, load(Row, row)) for key, row in connection.execute(query.order_by(table.judgement_id))]
    return tuple(Revision(key, dict(row.lineage)[DRAFT_ID], row.completion, row.made_by) for key, row in rows)


def forget_critiques(connection: Connection, origins: Sequence[str]) -> int:
    """Delete the answers and rows that were written from judgements or drafts; returns the number of rows.

    Runs that may still have them in memory lose their jobs, so that they store nothing more; another one reads the comments again.
    """
    if not origins:
        return 0
    may_know = syntheses.c.spec["task"].astext == CRITIQUE
    revoke_jobs(connection, jobs, SYNTHESIS, select(syntheses.c.synthesis_id).where(may_know))
    connection.execute(delete(synthesis_answers).where(synthesis_answers.c.document_ids.overlap(origins)))
    is_written = synthesis_rows.c.document_ids.overlap(origins)
    return connection.execute(delete(synthesis_rows).where(is_written, synthesis_rows.c.judgement_id != "")).rowcount
