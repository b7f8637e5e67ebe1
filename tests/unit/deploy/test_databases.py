"""The init program for databases: what it prints, and that no statement has a password. On a PostgreSQL: tests/integration/test_roles.py."""

from deploy.init.credentials import Credentials
from deploy.init.databases import apply


class FakeConnection:
    """A superuser's connection. Remembers the roles and databases that exist, which are open to all, and the executed statements."""

    class pgconn:
        """The part of psycopg's `pgconn` that is used."""

        @staticmethod
        def encrypt_password(password: bytes, user: bytes, algorithm: bytes) -> bytes:
            return b"SCRAM$" + user

    def __init__(self) -> None:
        self.existing: set[tuple[str, str]] = set()
        self.closed: set[str] = set()
        self.statements: list[str] = []
        self._row: tuple[bool] | None = None

    def execute(self, statement: object, parameters: tuple[str, ...] | None = None) -> "FakeConnection":
        text = statement if isinstance(statement, str) else statement.as_string(None)  # type: ignore[attr-defined]
        words = text.split()
        if words[0] == "SELECT":
            self._row = self._answer(text, parameters[0] if parameters else "")
            return self
        if words[0] == "CREATE":
            self.existing.add((words[1].lower(), words[2].strip('"')))
        if words[0] == "REVOKE":
            self.closed.add(words[4].strip('"'))
        self.statements.append(text)
        return self

    def _answer(self, question: str, name: str) -> tuple[bool] | None:
        if "current_user" in question:
            return (True,)
        if "has_database_privilege" in question:
            return (name not in self.closed,)
        table = "role" if "pg_roles" in question else "database"
        return (False,) if (table, name) in self.existing else None

    def fetchone(self) -> tuple[bool] | None:
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
    (statement,) = connection.statements
    assert statement.startswith("ALTER ROLE")


def test_no_statement_contains_the_password() -> None:
    connection = FakeConnection()
    apply(connection, CREDENTIALS)
    assert not [text for text in connection.statements if "hunter2" in text]
