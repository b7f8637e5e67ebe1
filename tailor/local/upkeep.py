"""Upkeep of the embedded stores: objects expire, and what was deleted leaves the stores' files too.

MinIO does the first by lifecycle rules. SeaweedFS expires only what was written after a rule was set, in separate volumes, and neither
days over 255; so the embedded store's objects are deleted here, by the same rules.
"""

import ssl
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from http.client import HTTPException, HTTPSConnection
from pathlib import Path

import psycopg
import urllib3
from minio import Minio
from minio.error import MinioException
from psycopg import sql

from tailor.errors import Reason, Unavailable
from tailor.storage.policies import EXPIRY_RULES

# Any deleted byte is worth compacting.
GARBAGE_SHARE = 0.000001
COMPACTION_SECONDS = 600


def delete_expired(client: Minio, now: datetime, rules: Mapping[str, Mapping[str, int]] = EXPIRY_RULES) -> int:
    """Delete the objects that are older than the days of their bucket's rules; returns their number. Idempotent.

    Raises Unavailable (OBJECT_STORE_UNAVAILABLE).
    """
    deleted = 0
    try:
        for bucket, days_by_prefix in rules.items():
            for prefix, days in days_by_prefix.items():
                for item in client.list_objects(bucket, prefix, recursive=True):
                    if item.last_modified is not None and item.last_modified < now - timedelta(days=days):
                        client.remove_object(bucket, str(item.object_name))
                        deleted += 1
    except (MinioException, urllib3.exceptions.HTTPError, OSError) as error:
        raise _no_answer(error) from None
    return deleted


def compact_store(address: str, certificates: Path) -> None:
    """Rewrite the store's volumes without what was deleted. Blocks until that is done. `address` is the master's HOST:PORT.

    Raises Unavailable (OBJECT_STORE_UNAVAILABLE).
    """
    context = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    context.load_cert_chain(certificates / "store.pem", certificates / "store.key")
    connection = HTTPSConnection(address, timeout=COMPACTION_SECONDS, context=context)
    try:
        connection.request("GET", f"/vol/vacuum?garbageThreshold={GARBAGE_SHARE:f}")
        status = connection.getresponse().status
    except (OSError, HTTPException) as error:
        raise _no_answer(error) from None
    finally:
        connection.close()
    if status >= 400:
        raise Unavailable(Reason.OBJECT_STORE_FAILED, f"The object store's compaction answered {status}.")


def compact_database(connection_string: str) -> None:
    """Rewrite the tables of a database without deleted rows, and drop the log of changes that still has them. The superuser's call.

    A table that is in use for longer than five seconds waits for the next time. Raises Unavailable (DATABASE_UNAVAILABLE).
    """
    try:
        with psycopg.connect(connection_string, autocommit=True, connect_timeout=5) as connection:
            connection.execute("SET lock_timeout = '5s'")
            tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
            for (table,) in tables:
                try:
                    connection.execute(sql.SQL("VACUUM (FULL) {}").format(sql.Identifier(table)))
                except psycopg.errors.LockNotAvailable:
                    continue
            # Closed segments of the log are removed by the checkpoint after the next one began.
            for _ in range(2):
                connection.execute("SELECT pg_switch_wal()")
                connection.execute("CHECKPOINT")
    except psycopg.Error as error:
        raise Unavailable(
            Reason.DATABASE_UNAVAILABLE, f"The database could not be compacted ({type(error).__name__})."
        ) from None


def expire_and_compact(client: Minio, address: str, certificates: Path) -> None:
    """The object store's upkeep. Raises Unavailable."""
    delete_expired(client, datetime.now(UTC))
    compact_store(address, certificates)


def _no_answer(error: Exception) -> Unavailable:
    return Unavailable(Reason.OBJECT_STORE_UNAVAILABLE, f"The object store does not answer ({type(error).__name__}).")
