"""Roles and databases on a real PostgreSQL, by a superuser and by an administrator as managed databases give one."""

import uuid
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
from psycopg import sql

from tailor.local.roles import apply_role_and_database

pytestmark = pytest.mark.integration


@pytest.fixture
def superuser(database_server: str) -> Iterator[psycopg.Connection]:
    """The superuser of an embedded PostgreSQL."""
    url = database_server.replace("+psycopg", "")
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def names(superuser: psycopg.Connection) -> Iterator[tuple[str, str]]:
    """Two services of this test, removed afterwards."""
    made = f"first_{uuid.uuid4().hex[:8]}", f"second_{uuid.uuid4().hex[:8]}"
    yield made
    for name in made:
        superuser.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name)))
        superuser.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(name)))


@pytest.fixture
def managed(superuser: psycopg.Connection, names: tuple[str, str]) -> Iterator[psycopg.Connection]:
    """An administrator with CREATEROLE and CREATEDB, but not a superuser. The embedded server lets a role into the database of its name."""
    name = f"admin_{uuid.uuid4().hex[:8]}"
    me = sql.Identifier(name)
    superuser.execute(sql.SQL("CREATE ROLE {} LOGIN CREATEROLE CREATEDB PASSWORD 'pw'").format(me))
    superuser.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(me, me))
    try:
        with closing(connect(superuser, name, name)) as connection:
            connection.autocommit = True
            yield connection
    finally:
        for service in names:
            superuser.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(service)))
            superuser.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(service)))
        superuser.execute(sql.SQL("DROP DATABASE {}").format(me))
        superuser.execute(sql.SQL("DROP ROLE {}").format(me))


def connect(administrator: psycopg.Connection, user: str, database: str, password: str = "pw") -> psycopg.Connection:
    info = administrator.info
    return psycopg.connect(f"host={info.host} port={info.port} user={user} password={password} dbname={database}")


def may_connect(connection: psycopg.Connection, role: str, database: str) -> bool:
    question = "SELECT has_database_privilege(%s, %s, 'CONNECT')"
    return connection.execute(question, [role, database]).fetchone() == (True,)


@pytest.mark.parametrize("who", ["superuser", "managed"])
def test_a_role_reaches_only_its_own_database(who: str, names: tuple[str, str], request: pytest.FixtureRequest) -> None:
    administrator = request.getfixturevalue(who)
    first, second = names
    for name in (first, second, first, second):
        apply_role_and_database(administrator, name, "pw")
    with connect(administrator, first, first) as connection:
        connection.execute("CREATE TABLE notes (number int)")
    assert may_connect(administrator, first, first)
    assert not may_connect(administrator, first, second)


def test_a_managed_administrator_does_not_stay_a_member_of_the_services_roles(
    managed: psycopg.Connection, names: tuple[str, str]
) -> None:
    apply_role_and_database(managed, names[0], "pw")
    question = "SELECT pg_has_role(current_user, %s, 'SET')"
    assert managed.execute(question, [names[0]]).fetchone() == (False,)
    with connect(managed, names[0], names[0]) as connection:
        connection.execute("CREATE TABLE notes (number int)")
    assert not may_connect(managed, managed.info.user, names[0])


def test_a_managed_administrator_changes_a_password(managed: psycopg.Connection, names: tuple[str, str]) -> None:
    apply_role_and_database(managed, names[0], "pw")
    apply_role_and_database(managed, names[0], "new")
    connect(managed, names[0], names[0], "new").close()
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        connect(managed, names[0], names[0])


def test_a_role_that_got_more_rights_loses_them(superuser: psycopg.Connection, names: tuple[str, str]) -> None:
    apply_role_and_database(superuser, names[0], "pw")
    superuser.execute(sql.SQL("ALTER ROLE {} CREATEDB SUPERUSER").format(sql.Identifier(names[0])))
    apply_role_and_database(superuser, names[0], "pw")
    question = "SELECT rolsuper OR rolcreatedb FROM pg_roles WHERE rolname = %s"
    assert superuser.execute(question, [names[0]]).fetchone() == (False,)
