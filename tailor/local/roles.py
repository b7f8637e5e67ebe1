"""PostgreSQL roles and databases, one pair for each service that keeps state in SQL."""

from typing import Any

from psycopg import sql


def apply_role_and_database(connection: Any, service: str, password: str) -> None:
    """Create or update a service's role, and create its database, over a psycopg connection in autocommit. Idempotent.

    Only that role may connect to the database.
    """
    # Send a verifier instead of the password, because the server may log the statement.
    verifier = connection.pgconn.encrypt_password(password.encode(), service.encode(), b"scram-sha-256").decode()
    name = sql.Identifier(service)
    exists = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [service]).fetchone()
    statement = "{} ROLE {} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD {}"
    verb = sql.SQL("ALTER" if exists else "CREATE")
    connection.execute(sql.SQL(statement).format(verb, name, sql.Literal(verifier)))
    if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [service]).fetchone() is None:
        connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(name, name))
    for database in (service, "postgres", "template1"):
        connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(database)))
