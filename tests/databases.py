"""Databases of tests: empty, or at a service's newest schema, which a test process migrates once and then copies."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from tailor.sql import connect, migrate


class Databases:
    """Makes the databases of one server. Not thread-safe."""

    def __init__(self, server: str, connection: psycopg.Connection) -> None:
        self._server = server
        self._connection = connection
        self._templates: dict[Path, str] = {}
        # Empty databases that copies replaced. Renaming one costs far less than creating another.
        self._unused: list[str] = []

    def create(self) -> str:
        """Create an empty database and return its URL."""
        name = _new_name()
        if self._unused:
            self._rename(self._unused.pop(), name)
        else:
            self._execute(f'CREATE DATABASE "{name}"')
        return self._url(name)

    def fill(self, url: str, migrations: Path) -> None:
        """Give an empty database the tables of a service. Fails if there is a connection to it."""
        if migrations not in self._templates:
            self._templates[migrations] = self._make_template(migrations)
        name, unused = _name(url), _new_name()
        self._rename(name, unused)
        self._unused.append(unused)
        self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{self._templates[migrations]}"')

    def drop(self, url: str) -> None:
        """Drop a database, even if there are connections to it."""
        self._drop(_name(url))

    def drop_spare(self) -> None:
        """Drop what no test has: the migrated databases and the unused ones."""
        for name in (*self._templates.values(), *self._unused):
            self._drop(name)
        self._templates.clear()
        self._unused.clear()

    def _make_template(self, migrations: Path) -> str:
        name = _new_name()
        self._execute(f'CREATE DATABASE "{name}"')
        engine = connect(self._url(name))
        migrate(engine, migrations)
        # A database with connections cannot be copied.
        engine.dispose()
        return name

    def _rename(self, old: str, new: str) -> None:
        self._execute(f'ALTER DATABASE "{old}" RENAME TO "{new}"')

    def _drop(self, name: str) -> None:
        self._execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def _execute(self, statement: str) -> None:
        self._connection.execute(statement.encode())

    def _url(self, name: str) -> str:
        return f"{self._server}/{name}"


_open: dict[str, Databases] = {}


@contextmanager
def open_databases(admin: str) -> Iterator[Databases]:
    """The databases of the server at this URL, whose role must be allowed to create databases."""
    server = admin.rpartition("/")[0]
    with psycopg.connect(admin.replace("+psycopg", ""), autocommit=True) as connection:
        databases = _open[server] = Databases(server, connection)
        try:
            yield databases
        finally:
            del _open[server]
            databases.drop_spare()


def fill(url: str, migrations: Path) -> None:
    """Give an empty database of an open server the tables of a service."""
    _open[url.rpartition("/")[0]].fill(url, migrations)


def _new_name() -> str:
    return f"test_{uuid.uuid4().hex}"


def _name(url: str) -> str:
    return url.rpartition("/")[2]
