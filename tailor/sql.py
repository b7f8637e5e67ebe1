"""PostgreSQL through SQLAlchemy: connecting, transactions, migrations."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command, context
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, MetaData, create_engine, func, select
from sqlalchemy.exc import DataError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from tailor.errors import FailedPrecondition, InvalidArgument, Reason, Unavailable

MIGRATION_LOCK = 7_461_001


def connect(url: str) -> Engine:
    """Make an engine whose pool replaces lost connections. It connects at first use."""
    return create_engine(
        url,
        pool_pre_ping=True,
        pool_size=5,
        max_overflow=15,
        pool_timeout=10,
        connect_args={"connect_timeout": 5},
        hide_parameters=True,
    )


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """Run one transaction. Raises Unavailable if the database does not answer or ends the transaction to resolve a deadlock.

    Raises InvalidArgument (INVALID_VALUE) for a value that PostgreSQL cannot store, such as a text that is longer than its column.
    """
    try:
        with engine.begin() as connection:
            yield connection
    except (OperationalError, InterfaceError, PoolTimeoutError) as error:
        raise Unavailable(
            Reason.DATABASE_UNAVAILABLE, f"The database does not answer ({type(error).__name__})."
        ) from None
    except DataError:
        raise InvalidArgument(
            Reason.INVALID_VALUE, "A value cannot be stored: it is too long, out of range, or contains a NUL character."
        ) from None
    except DBAPIError as error:
        if error.connection_invalidated:
            raise Unavailable(Reason.DATABASE_UNAVAILABLE, "The database connection was lost.") from None
        raise


def acquire_lock(connection: Connection, number: int) -> None:
    """Block until nobody else has this lock, exclusive or shared, and hold it until the transaction ends."""
    connection.execute(select(func.pg_advisory_xact_lock(number)))


def acquire_shared_lock(connection: Connection, number: int) -> None:
    """Block until nobody else has this lock exclusively, and hold it until the transaction ends."""
    connection.execute(select(func.pg_advisory_xact_lock_shared(number)))


def migrate(engine: Engine, script_location: Path) -> None:
    """Upgrade the schema to the newest revision. Idempotent; a lock makes replicas that start together wait for each other.

    Raises FailedPrecondition (DATABASE_UNAVAILABLE) before any change if this release does not know the database's revision.
    """
    config = Config()
    config.set_main_option("script_location", str(script_location))
    with transaction(engine) as connection:
        acquire_lock(connection, MIGRATION_LOCK)
        _refuse_unknown(connection, config)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _refuse_unknown(connection: Connection, config: Config) -> None:
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    unknown = set(MigrationContext.configure(connection).get_current_heads()) - known
    if unknown:
        raise FailedPrecondition(
            Reason.DATABASE_UNAVAILABLE,
            f"The database is at revision {min(unknown)}, which this release does not know: install the release that wrote it, or begin "
            "with an empty database (`tailor up` with another `--state-dir`).",
        )


def create_tables(engine: Engine, metadata: MetaData) -> None:
    """Create the shared library's own tables, which no service's migrations know. Idempotent; replicas wait for each other."""
    with transaction(engine) as connection:
        acquire_lock(connection, MIGRATION_LOCK)
        metadata.create_all(connection)


def run_env() -> None:
    """Run the migrations. Called by each migrations folder's `env.py`."""
    context.configure(connection=context.config.attributes["connection"])
    context.run_migrations()
