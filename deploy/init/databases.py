"""Create a database and a role for each service that keeps state in SQL. Only that role may connect to the database."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from deploy.init.credentials import DEFAULT_FILE, Credentials, load_credentials


class Settings(BaseSettings):
    """The administrator's connection, and the file with the services' credentials."""

    model_config = SettingsConfigDict(env_prefix="TAILOR_", extra="ignore")

    database_admin_url: SecretStr  # postgresql://USER:PASSWORD@HOST/postgres
    stores_file: Path = DEFAULT_FILE


def apply(connection: Any, credentials: Mapping[str, Credentials]) -> list[str]:
    """Create or update every role and database over a psycopg connection in autocommit. Returns the services' names. Idempotent."""
    services = []
    for service, entry in sorted(credentials.items()):
        if entry.database_password:
            _apply_role(connection, service, entry.database_password)
            _apply_database(connection, service)
            services.append(service)
    return services


def _apply_role(connection: Any, service: str, password: str) -> None:
    from psycopg import sql

    # Send a verifier instead of the password, because the server may log the statement.
    verifier = connection.pgconn.encrypt_password(password.encode(), service.encode(), b"scram-sha-256").decode()
    exists = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [service]).fetchone()
    verb = "ALTER" if exists else "CREATE"
    statement = sql.SQL(
        verb + " ROLE {} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD {}"
    )
    connection.execute(statement.format(sql.Identifier(service), sql.Literal(verifier)))


def _apply_database(connection: Any, service: str) -> None:
    from psycopg import sql

    name = sql.Identifier(service)
    if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [service]).fetchone() is None:
        connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(name, name))
    for database in (service, "postgres", "template1"):
        connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(database)))


def main() -> None:
    """Read `TAILOR_DATABASE_ADMIN_URL` and the credentials file, and create the roles and databases."""
    import psycopg

    settings = Settings()
    with psycopg.connect(settings.database_admin_url.get_secret_value(), autocommit=True) as connection:
        services = apply(connection, load_credentials(settings.stores_file))
    sys.stdout.write(f"databases: {', '.join(services)}\n")


if __name__ == "__main__":
    main()
