"""Create every secret of a deployment: `python -m deploy.make_secrets FOLDER` writes FOLDER/secrets. Never commit that folder.

The values are created in the same way as those of the embedded stack. A repeated run keeps them. Each service's file contains only that
service's secrets. The folder has mode 0700, and the files that containers read have mode 0644: containers run as another user and mount
single files, and nobody else can enter the folder.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from deploy.init.credentials import Credentials
from tailor.local.layout import SERVICES, WITH_DATABASE, Layout
from tailor.local.secrets import (
    ADMIN,
    WORKER,
    Secrets,
    drop_previous_vault_keys,
    ensure,
    renew_vault_key,
    write,
)
from tailor.storage.buckets import ACCESS

DATABASE_HOST = "postgres:5432"
ADMINISTRATOR = "postgres"


def make(folder: Path) -> Path:
    """Create the missing secrets under `FOLDER/secrets`, and return that path. Idempotent."""
    secrets = ensure(Layout(folder.absolute()))
    credentials = {service: _credentials(service, secrets) for service in (*SERVICES, WORKER)}
    entries = {service: asdict(entry) for service, entry in credentials.items()}
    write(secrets.directory / "stores.json", json.dumps(entries, indent=1))
    for name, settings in _administration(secrets).items():
        _write_env(secrets.directory / f"{name}.env", settings)
    for service in SERVICES:
        settings = _store_settings(service, credentials[service]) | secrets.service_settings(service)
        _write_env(secrets.directory / f"{service}.env", settings)
    for path in (*secrets.directory.glob("*.pem"), secrets.trust_file, secrets.directory / "stores.json"):
        path.chmod(0o644)
    return secrets.directory


def _credentials(service: str, secrets: Secrets) -> Credentials:
    key = secrets.s3(service)
    password = secrets.database_password(service) if service in WITH_DATABASE else ""
    return Credentials(key.access_key, key.secret_key, password)


def _administration(secrets: Secrets) -> dict[str, dict[str, str]]:
    """The administrators' credentials: for the stores when they start, and for the init programs."""
    key, password = secrets.s3(ADMIN), secrets.database_password(ADMIN)
    url = f"postgresql://{ADMINISTRATOR}:{password}@{DATABASE_HOST}/{ADMINISTRATOR}"
    return {
        "postgres": {"POSTGRES_USER": ADMINISTRATOR, "POSTGRES_PASSWORD": password},
        "minio": {"MINIO_ROOT_USER": key.access_key, "MINIO_ROOT_PASSWORD": key.secret_key},
        "init-databases": {"TAILOR_DATABASE_ADMIN_URL": url},
        "init-buckets": {"TAILOR_S3_ADMIN_ACCESS_KEY": key.access_key, "TAILOR_S3_ADMIN_SECRET_KEY": key.secret_key},
    }


def _store_settings(service: str, credentials: Credentials) -> dict[str, str]:
    settings: dict[str, str] = {}
    if ACCESS[service]:
        settings |= {
            "TAILOR_S3_ACCESS_KEY": credentials.s3_access_key,
            "TAILOR_S3_SECRET_KEY": credentials.s3_secret_key,
        }
    if credentials.database_password:
        url = f"postgresql+psycopg://{service}:{credentials.database_password}@{DATABASE_HOST}/{service}"
        settings["TAILOR_DATABASE_URL"] = url
    return settings


def _write_env(path: Path, settings: Mapping[str, str]) -> None:
    write(path, "".join(f"{name}={value}\n" for name, value in settings.items()))


def main() -> None:
    """Create the secrets in the folder given on the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m deploy.make_secrets", description="Create the missing secrets of a deployment."
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    change = parser.add_mutually_exclusive_group()
    change.add_argument(
        "--new-vault-key", action="store_true", help="create a new vault key and keep the old one as a previous key"
    )
    change.add_argument(
        "--drop-previous-vault-keys",
        action="store_true",
        help="delete previous vault keys, after the rotation has finished",
    )
    arguments = parser.parse_args()
    layout = Layout(arguments.folder.absolute())
    if arguments.new_vault_key:
        renew_vault_key(layout)
    elif arguments.drop_previous_vault_keys:
        drop_previous_vault_keys(layout)
    folder = make(arguments.folder)
    sys.stdout.write(
        f"{folder}: the first operator's API key is in operator.key, the console's password in console.password\n"
    )


if __name__ == "__main__":
    main()
