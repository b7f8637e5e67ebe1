"""Advisory locks of PostgreSQL that are held for long: they belong to a connection without a transaction, and end with it."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from tailor.errors import Reason, Unavailable

LOCK = text("SELECT pg_try_advisory_lock(hashtextextended(:name, 0))")
UNLOCK = text("SELECT pg_advisory_unlock(hashtextextended(:name, 0))")


@contextmanager
def session(engine: Engine) -> Iterator[Connection]:
    """A connection on which every statement commits at once. Raises Unavailable if the database does not answer."""
    try:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            yield connection
    except (OperationalError, InterfaceError, PoolTimeoutError) as error:
        raise Unavailable(
            Reason.DATABASE_UNAVAILABLE, f"The database does not answer ({type(error).__name__})."
        ) from None


@contextmanager
def session_lock(engine: Engine, name: str) -> Iterator[bool]:
    """Hold a lock; yields False at once if another connection holds it. A killed process holds nothing."""
    with session(engine) as connection:
        is_held = bool(connection.scalar(LOCK, {"name": name}))
        try:
            yield is_held
        finally:
            if is_held:
                connection.execute(UNLOCK, {"name": name})
