"""PostgreSQL roles and databases, one pair for each service that keeps state in SQL.

The administrator is a superuser, or has CREATEROLE and CREATEDB as in managed databases. See https://www.postgresql.org/docs/current/role-attributes.html.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from psycopg import sql

# One row for a role that exists: whether it has any of the attributes that services do not need.
HAS_ATTRIBUTES = """
SELECT rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls FROM pg_roles WHERE rolname = %s
"""
NONE_OF_THEM = "NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
# From this version on, who creates a role may not act as it unless that is granted separately.
SEPARATE_SET = 160_000


def apply_role_and_database(connection: Any, service: str, password: str) -> None:
    """Create or update a service's role, and create its database, over a psycopg connection in autocommit. Idempotent.

    Only that role may connect to the database. A superuser also closes `postgres` and `template1` to everybody else; in a managed
    database these are the provider's. Raises psycopg's InsufficientPrivilege if the administrator may not do what is missing.
    """
    is_superuser = bool(_ask(connection, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user")[0])
    _apply_role(connection, service, password)
    exists = _ask(connection, "SELECT 1 FROM pg_database WHERE datname = %s", service) is not None
    if not exists or _is_open(connection, service):
        with _acting_as(connection, service, needed=not is_superuser):
            name = sql.Identifier(service)
            if not exists:
                connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(name, name))
            _close(connection, service)
    if is_superuser:
        for database in ("postgres", "template1"):
            if _is_open(connection, database):
                _close(connection, database)


def _apply_role(connection: Any, service: str, password: str) -> None:
    # Send a verifier instead of the password, because the server may log the statement.
    verifier = connection.pgconn.encrypt_password(password.encode(), service.encode(), b"scram-sha-256").decode()
    known = _ask(connection, HAS_ATTRIBUTES, service)
    verb = "CREATE" if known is None else "ALTER"
    # Only a superuser may name the attributes of a role that exists, even if they do not change.
    attributes = NONE_OF_THEM if known is None or known[0] else ""
    statement = sql.SQL(f"{verb} ROLE {{}} LOGIN {attributes} PASSWORD {{}}")
    connection.execute(statement.format(sql.Identifier(service), sql.Literal(verifier)))


@contextmanager
def _acting_as(connection: Any, service: str, *, needed: bool) -> Iterator[None]:
    """Membership of the service's role, which owns its database; given back at the end."""
    if not needed:
        yield
        return
    name, me = sql.Identifier(service), sql.Identifier(_ask(connection, "SELECT current_user")[0])
    options = sql.SQL(" WITH SET TRUE, INHERIT TRUE" if connection.info.server_version >= SEPARATE_SET else "")
    connection.execute(sql.SQL("GRANT {} TO {}").format(name, me) + options)
    try:
        yield
    finally:
        connection.execute(sql.SQL("REVOKE {} FROM {}").format(name, me))


def _is_open(connection: Any, database: str) -> bool:
    """True if every role may connect to the database."""
    return bool(_ask(connection, "SELECT has_database_privilege('public', %s, 'CONNECT')", database)[0])


def _close(connection: Any, database: str) -> None:
    connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(database)))


def _ask(connection: Any, question: str, *parameters: str) -> Any:
    return connection.execute(question, parameters or None).fetchone()
