"""Queries that several adapters share."""

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import String

from services.synthetic.adapters import tables
from services.synthetic.adapters.conditions import is_one_of

UNLISTED = text("""
    SELECT key FROM unnest(:keys) AS key
    WHERE NOT EXISTS (SELECT FROM dataset_files f WHERE f.key = key.key)
    AND NOT EXISTS (SELECT FROM segments s WHERE s.file_keys @> ARRAY[key.key]::varchar[])
    AND NOT EXISTS (SELECT FROM written_files w WHERE w.key = key.key)
    ORDER BY key
""").bindparams(bindparam("keys", type_=ARRAY(String)))


def read_sides(connection: Connection, specialist: str, document_ids: Sequence[str]) -> dict[str, bool]:
    """True for each document that the specialist holds out, without those that have no assignment."""
    table = tables.assignments.c
    query = select(table.document_id, table.held_out).where(table.specialist == specialist)
    rows = connection.execute(query.where(is_one_of(table.document_id, document_ids)))
    return {row.document_id: row.held_out for row in rows}


def unlisted_keys(connection: Connection, keys: Sequence[str]) -> list[str]:
    """Those of the keys that no dataset, stored segment or running build lists, sorted."""
    return list(connection.scalars(UNLISTED, {"keys": list(keys)})) if keys else []
