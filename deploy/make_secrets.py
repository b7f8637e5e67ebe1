"""Create every secret of a deployment: `python -m deploy.make_secrets FOLDER` writes FOLDER/secrets. Never commit that folder.

The values are created in the same way as those of the embedded stack. A repeated run keeps them. Each service's file contains only that
service's secrets. The folder has mode 0700, and the files that containers read have mode 0644: containers run as another user and mount
single files, and nobody else can enter the folder.
"""

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from deploy.certificates import NAMESPACE, make_certificates
from tailor.events.access import KafkaNames
from tailor.local.layout import SERVICES, WITH_DATABASE, Layout
from tailor.local.secrets import (
    ADMIN,
    CONTROLLER,
    KAFKA_USERS,
    Secrets,
    add_publishers,
    drop_previous_vault_keys,
    ensure,
    renew_vault_key,
    write,
)
from tailor.storage.buckets import ACCESS

# Where compose and the dev overlay have it.
DATABASE_HOST = "postgres:5432"
ADMINISTRATOR = "postgres"
DATABASE = re.compile(r"[A-Za-z0-9.\[\]:_-]+:[0-9]{1,5}(\?[a-z_]+=[A-Za-z0-9/._-]+(&[a-z_]+=[A-Za-z0-9/._-]+)*)?")
NAMESPACE_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
JAAS = "org.apache.kafka.common.security"
# The listeners that users of Kafka reach: the services', and the publishers' own.
USER_LISTENERS = ("INTERNAL", "PUBLISHERS")


def make(
    folder: Path, publishers: Sequence[str] = (), database: str = DATABASE_HOST, namespace: str = NAMESPACE
) -> Path:
    """Create the missing secrets under `FOLDER/secrets`, and return that path. Idempotent.

    `publishers` are users of Kafka besides `publisher`; `database` is HOST:PORT, with libpq's options behind a question mark; `namespace`
    is part of the names in the services' certificates. Raises ValueError for a name or an address that cannot be one.
    """
    if not DATABASE.fullmatch(database):
        raise ValueError(
            "the database must be HOST:PORT or HOST:PORT?OPTIONS, such as db.example:5432?sslmode=verify-full"
        )
    if not NAMESPACE_NAME.fullmatch(namespace):
        raise ValueError("the namespace must be a name of Kubernetes: a-z, 0-9 and -, at most 63 characters")
    layout = Layout(folder.absolute())
    add_publishers(layout, publishers)
    secrets = ensure(layout)
    write(secrets.directory / "stores.json", json.dumps(secrets.store_credentials(), indent=1))
    for name, settings in _administration(secrets, database).items():
        _write_env(secrets.directory / f"{name}.env", settings)
    for service in SERVICES:
        settings = _store_settings(service, secrets, database) | secrets.service_settings(service)
        _write_env(secrets.directory / f"{service}.env", settings)
    for user in secrets.kafka_users:
        if user not in SERVICES:
            _write_env(secrets.directory / f"kafka-{user}.env", _outside(user, secrets))
    make_certificates(secrets.directory, namespace)
    for path in (*secrets.directory.glob("*.pem"), secrets.trust_file, secrets.directory / "stores.json"):
        path.chmod(0o644)
    return secrets.directory


def _administration(secrets: Secrets, database: str) -> dict[str, dict[str, str]]:
    """The administrators' credentials: for the stores when they start, and for the init programs."""
    key, password = secrets.s3(ADMIN), secrets.database_password(ADMIN)
    url = f"postgresql://{ADMINISTRATOR}:{password}@{_path_of(database, ADMINISTRATOR)}"
    return {
        "postgres": {"POSTGRES_USER": ADMINISTRATOR, "POSTGRES_PASSWORD": password},
        "minio": {"MINIO_ROOT_USER": key.access_key, "MINIO_ROOT_PASSWORD": key.secret_key},
        "init-databases": {"TAILOR_DATABASE_ADMIN_URL": url},
        "init-buckets": {"TAILOR_S3_ADMIN_ACCESS_KEY": key.access_key, "TAILOR_S3_ADMIN_SECRET_KEY": key.secret_key},
        "init-topics": {
            "TAILOR_KAFKA_SASL_MECHANISM": "PLAIN",
            "TAILOR_KAFKA_SASL_USERNAME": ADMIN,
            "TAILOR_KAFKA_SASL_PASSWORD": secrets.kafka_password(ADMIN),
        },
        "kafka": _broker(secrets),
    }


def _broker(secrets: Secrets) -> dict[str, str]:
    """The broker's own passwords, as its image reads them. Users and their passwords are created by `deploy.init.topics`."""
    listeners = {"INTERNAL": ADMIN, "CONTROLLER": CONTROLLER}
    plain = {
        f"KAFKA_LISTENER_NAME_{listener}_PLAIN_SASL_JAAS_CONFIG": (
            f'{JAAS}.plain.PlainLoginModule required username="{user}" password="{secrets.kafka_password(user)}" '
            f'user_{user}="{secrets.kafka_password(user)}";'
        )
        for listener, user in listeners.items()
    }
    scram = {
        f"KAFKA_LISTENER_NAME_{listener}_SCRAM___SHA___512_SASL_JAAS_CONFIG": f"{JAAS}.scram.ScramLoginModule required;"
        for listener in USER_LISTENERS
    }
    return plain | scram


def _kafka_user(user: str, secrets: Secrets) -> dict[str, str]:
    return {
        "TAILOR_KAFKA_SASL_USERNAME": KafkaNames().username_of(user),
        "TAILOR_KAFKA_SASL_PASSWORD": secrets.kafka_password(user),
    }


def _outside(user: str, secrets: Secrets) -> dict[str, str]:
    """The settings of a user of Kafka outside: a publisher, or the operator who reads events."""
    protocol = {"TAILOR_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT", "TAILOR_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512"}
    return protocol | _kafka_user(user, secrets)


def _path_of(database: str, name: str) -> str:
    host, mark, options = database.partition("?")
    return f"{host}/{name}{mark}{options}"


def _store_settings(service: str, secrets: Secrets, database: str) -> dict[str, str]:
    settings: dict[str, str] = {}
    if ACCESS[service]:
        key = secrets.s3(service)
        settings |= {"TAILOR_S3_ACCESS_KEY": key.access_key, "TAILOR_S3_SECRET_KEY": key.secret_key}
    if service in WITH_DATABASE:
        place = _path_of(database, service)
        url = f"postgresql+psycopg://{service}:{secrets.database_password(service)}@{place}"
        settings["TAILOR_DATABASE_URL"] = url
    return settings | (_kafka_user(service, secrets) if service in KAFKA_USERS else {})


def _write_env(path: Path, settings: Mapping[str, str]) -> None:
    write(path, "".join(f"{name}={value}\n" for name, value in settings.items()))


def main() -> None:
    """Create the secrets in the folder given on the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m deploy.make_secrets", description="Create the missing secrets of a deployment."
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument(
        "--publisher",
        action="append",
        default=[],
        metavar="NAME",
        help="a further user of Kafka who publishes documents; name it in TAILOR_KAFKA_PUBLISHERS too",
    )
    parser.add_argument(
        "--database",
        default=DATABASE_HOST,
        metavar="HOST:PORT[?OPTIONS]",
        help="the services' PostgreSQL, such as db.example:5432?sslmode=verify-full; compose's and dev's by default",
    )
    parser.add_argument("--namespace", default=NAMESPACE, help="the services' namespace on Kubernetes: %(default)s")
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
    folder = make(arguments.folder, arguments.publisher, arguments.database, arguments.namespace)
    sys.stdout.write(
        f"{folder}: the first operator's API key is in operator.key, data protection's in protection.key, "
        "the console's password in console.password\n"
    )


if __name__ == "__main__":
    main()
