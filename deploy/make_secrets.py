"""Makes every secret of a deployment: `python -m deploy.make_secrets FOLDER` writes FOLDER/secrets, never committed.

The values are made as the embedded stack makes its own, and kept by a second run; each service's file holds that service's own and nothing
else. The folder is 0700 and what containers read in it 0644: a container reads as another user, through mounts of single files, and nobody
else gets past the folder.
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
    PREVIOUS,
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
    """Write what is missing under `FOLDER/secrets`, which it returns."""
    secrets = ensure(Layout(folder.absolute()))
    credentials = {service: _credentials(service, secrets) for service in (*SERVICES, WORKER)}
    entries = {service: asdict(own) for service, own in credentials.items()}
    write(secrets.directory / "stores.json", json.dumps(entries, indent=1))
    for name, settings in _administration(secrets).items():
        _write_env(secrets.directory / f"{name}.env", settings)
    for service in SERVICES:
        settings = _store_settings(service, credentials[service]) | _own_settings(service, secrets)
        _write_env(secrets.directory / f"{service}.env", settings)
    for path in (*secrets.directory.glob("*.pem"), secrets.trust_file, secrets.directory / "stores.json"):
        path.chmod(0o644)
    return secrets.directory


def _credentials(service: str, secrets: Secrets) -> Credentials:
    key = secrets.s3(service)
    password = secrets.database_password(service) if service in WITH_DATABASE else ""
    return Credentials(key.access_key, key.secret_key, password)


def _administration(secrets: Secrets) -> dict[str, dict[str, str]]:
    """What the stores begin with, and what the init programs administrate each of them with."""
    key, password = secrets.s3(ADMIN), secrets.database_password(ADMIN)
    url = f"postgresql://{ADMINISTRATOR}:{password}@{DATABASE_HOST}/{ADMINISTRATOR}"
    return {
        "postgres": {"POSTGRES_USER": ADMINISTRATOR, "POSTGRES_PASSWORD": password},
        "minio": {"MINIO_ROOT_USER": key.access_key, "MINIO_ROOT_PASSWORD": key.secret_key},
        "init-databases": {"TAILOR_DATABASE_ADMIN_URL": url},
        "init-buckets": {"TAILOR_S3_ADMIN_ACCESS_KEY": key.access_key, "TAILOR_S3_ADMIN_SECRET_KEY": key.secret_key},
    }


def _store_settings(service: str, own: Credentials) -> dict[str, str]:
    settings: dict[str, str] = {}
    if ACCESS[service]:
        settings |= {"TAILOR_S3_ACCESS_KEY": own.s3_access_key, "TAILOR_S3_SECRET_KEY": own.s3_secret_key}
    if own.database_password:
        url = f"postgresql+psycopg://{service}:{own.database_password}@{DATABASE_HOST}/{service}"
        settings["TAILOR_DATABASE_URL"] = url
    return settings


def _own_settings(service: str, secrets: Secrets) -> dict[str, str]:
    """Keys that belong to single services; the quarantine key is what ingestion and anonymization share."""
    values = secrets.values
    own: dict[str, dict[str, str]] = {
        "ingestion": {
            "TAILOR_QUARANTINE_KEY": values["quarantine.key"],
            "TAILOR_DIGEST_KEY": values["ingestion.digest.key"],
        },
        "anonymization": {
            "TAILOR_QUARANTINE_KEY": values["quarantine.key"],
            "TAILOR_VAULT_KEY": values["vault.key"],
            "TAILOR_VAULT_PREVIOUS_KEYS": values.get(PREVIOUS, ""),
        },
        "registry": {"TAILOR_BOOTSTRAP_OPERATOR_KEY_SHA256": secrets.operator_key_sha256},
        "training": {
            "TAILOR_WORKER_S3_ACCESS_KEY": secrets.s3(WORKER).access_key,
            "TAILOR_WORKER_S3_SECRET_KEY": secrets.s3(WORKER).secret_key,
        },
        "inference": {"TAILOR_DIGEST_KEY": values["inference.digest.key"]},
        "console": {"TAILOR_SESSION_SECRET": values["console.session"], "TAILOR_PASSWORD": values["console.password"]},
    }
    return own.get(service, {})


def _write_env(path: Path, settings: Mapping[str, str]) -> None:
    write(path, "".join(f"{name}={value}\n" for name, value in settings.items()))


def main() -> None:
    """Make the secrets into the folder that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m deploy.make_secrets", description="Make what is missing.")
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    change = parser.add_mutually_exclusive_group()
    change.add_argument("--new-vault-key", action="store_true", help="make a new key, and keep the old one beside it")
    change.add_argument("--drop-previous-vault-keys", action="store_true", help="once the rotation has left nothing")
    asked = parser.parse_args()
    layout = Layout(asked.folder.absolute())
    if asked.new_vault_key:
        renew_vault_key(layout)
    elif asked.drop_previous_vault_keys:
        drop_previous_vault_keys(layout)
    made = make(asked.folder)
    sys.stdout.write(
        f"{made}: the first operator's API key is in operator.key, the console's password in console.password\n"
    )


if __name__ == "__main__":
    main()
