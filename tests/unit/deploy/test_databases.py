"""The init program for databases, and a real PostgreSQL if TAILOR_DATABASE_ADMIN_URL is set."""

import os
from collections.abc import Iterator

import psycopg
import pytest

from deploy.init.credentials import Credentials
from deploy.init.databases import apply

URL = os.environ.get("TAILOR_DATABASE_ADMIN_URL", "")


class FakeConnection:
    """Remembers the roles and databases that exist, and the executed statements."""

    class pgconn:
        """The part of psycopg's `pgconn` that is used."""

        @staticmethod
        def encrypt_password(password: bytes, user: bytes, algorithm: bytes) -> bytes:
            return b"SCRAM$" + user

    def __init__(self) -> None:
        self.existing: set[tuple[str, str]] = set()
        self.statements: list[str] = []
        self._row: tuple[int] | None = None

    def execute(self, statement: object, parameters: list[str] | None = None) -> "FakeConnection":
        text = statement if isinstance(statement, str) else statement.as_string(None)  # type: ignore[attr-defined]
        if parameters:
            table = "role" if "pg_roles" in text else "database"
            self._row = (1,) if (table, parameters[0]) in self.existing else None
            return self
        words = text.split()
        if words[0] == "CREATE":
            self.existing.add((words[1].lower(), words[2].strip('"')))
        self.statements.append(text)
        return self

    def fetchone(self) -> tuple[int] | None:
        return self._row


CREDENTIALS = {"registry": Credentials("", "", "hunter2"), "console": Credentials("", "", "")}


def test_creates_a_role_and_a_closed_database_for_a_service_with_state() -> None:
    connection = FakeConnection()
    assert apply(connection, CREDENTIALS) == ["registry"]
    assert connection.existing == {("role", "registry"), ("database", "registry")}
    assert 'REVOKE ALL ON DATABASE "registry" FROM PUBLIC' in connection.statements


def test_a_second_run_only_sets_the_password_again() -> None:
    connection = FakeConnection()
    apply(connection, CREDENTIALS)
    connection.statements.clear()
    apply(connection, CREDENTIALS)
    assert not [text for text in connection.statements if text.startswith("CREATE")]
    assert connection.statements[0].startswith("ALTER ROLE")


def test_no_statement_contains_the_password() -> None:
    connection = FakeConnection()
    apply(connection, CREDENTIALS)
    assert not [text for text in connection.statements if "hunter2" in text]


@pytest.fixture
def administrator() -> Iterator[psycopg.Connection]:
    """A connection to TAILOR_DATABASE_ADMIN_URL."""
    if not URL:
        pytest.skip("set TAILOR_DATABASE_ADMIN_URL to run this test against a PostgreSQL")
    with psycopg.connect(URL, autocommit=True) as connection:
        yield connection


@pytest.mark.integration
def test_a_role_reaches_only_its_own_database(administrator: psycopg.Connection) -> None:
    credentials = {name: Credentials("", "", f"pw-{name}") for name in ("tailor_a", "tailor_b")}
    try:
        apply(administrator, credentials)
        apply(administrator, credentials)
        info = administrator.info
        address = f"host={info.host} port={info.port} user=tailor_a password=pw-tailor_a dbname="
        with psycopg.connect(address + "tailor_a") as connection:
            connection.execute("CREATE TABLE t (n int)")
        with pytest.raises(psycopg.OperationalError, match="permission denied"):
            psycopg.connect(address + "tailor_b")
    finally:
        for name in credentials:
            administrator.execute(f"DROP DATABASE IF EXISTS {name}")
            administrator.execute(f"DROP ROLE IF EXISTS {name}")
