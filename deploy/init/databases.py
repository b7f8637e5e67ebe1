"""Create a database and a role for each service that keeps state in SQL. Only that role may connect to the database."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from deploy.init.credentials import DEFAULT_FILE, Credentials, load_credentials
from tailor.local.roles import apply_role_and_database


class Settings(BaseSettings):
    """The administrator's connection, and the file with the services' credentials."""

    model_config = SettingsConfigDict(env_prefix="TAILOR_", extra="ignore", hide_input_in_errors=True)

    database_admin_url: SecretStr  # postgresql://USER:PASSWORD@HOST/postgres
    stores_file: Path = DEFAULT_FILE


def apply(connection: Any, credentials: Mapping[str, Credentials]) -> list[str]:
    """Create or update every role and database over a psycopg connection in autocommit. Returns the services' names. Idempotent."""
    services = []
    for service, entry in sorted(credentials.items()):
        if entry.database_password:
            apply_role_and_database(connection, service, entry.database_password)
            services.append(service)
    return services


def main() -> None:
    """Read `TAILOR_DATABASE_ADMIN_URL` and the credentials file, and create the roles and databases."""
    import psycopg

    settings = Settings()
    with psycopg.connect(settings.database_admin_url.get_secret_value(), autocommit=True) as connection:
        services = apply(connection, load_credentials(settings.stores_file))
    sys.stdout.write(f"databases: {', '.join(services)}\n")


if __name__ == "__main__":
    main()
