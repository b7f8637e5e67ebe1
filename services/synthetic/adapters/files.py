"""Which files in the datasets bucket are still listed somewhere."""

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import String

UNLISTED = text("""
    SELECT key FROM unnest(:keys) AS key
    WHERE NOT EXISTS (SELECT FROM dataset_files f WHERE f.key = key.key)
    AND NOT EXISTS (SELECT FROM segments s WHERE s.file_keys @> ARRAY[key.key]::varchar[])
    AND NOT EXISTS (SELECT FROM written_files w WHERE w.key = key.key)
    ORDER BY key
""").bindparams(bindparam("keys", type_=ARRAY(String)))


def unlisted_keys(connection: Connection, keys: Sequence[str]) -> list[str]:
    """Those of the keys that no dataset, stored segment or running build lists, sorted."""
    return list(connection.scalars(UNLISTED, {"keys": list(keys)})) if keys else []
