"""Every secret of a stack: created once, in files that only their owner can read."""

import base64
import fcntl
import hashlib
import json
import os
import re
import secrets
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tailor.events.access import OPERATOR, PUBLISHERS
from tailor.local.layout import SERVICES, WITH_DATABASE, Layout
from tailor.storage.buckets import ACCESS

ADMIN = "admin"
WORKER = "training-worker"
# The broker itself, towards its controller.
CONTROLLER = "controller"
IDENTITIES = (*SERVICES, WORKER)
# The vault's previous keys, newest first, separated by commas; absent if there are none.
PREVIOUS = "vault.previous"
# The console neither publishes nor consumes.
KAFKA_USERS = (*(service for service in SERVICES if service != "console"), OPERATOR, *PUBLISHERS)
PUBLISHER_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
STORE_TOKENS = ("volume_write", "volume_read", "filer_write", "filer_read")


@dataclass(frozen=True)
class S3Key:
    """Credentials of one identity at the object store."""

    access_key: str
    secret_key: str


@dataclass(frozen=True)
class Secrets:
    """The content of `Layout.secrets`."""

    directory: Path
    values: dict[str, str]

    def __repr__(self) -> str:
        return f"Secrets({self.directory})"

    @property
    def trust_file(self) -> Path:
        """The file with the public keys of all identities."""
        return self.directory / "trust.json"

    def identity_key_file(self, identity: str) -> Path:
        """The file with the private key of an identity."""
        return self.directory / f"{identity}.pem"

    def s3(self, identity: str) -> S3Key:
        """An identity's credentials for the object store; ADMIN is the stack itself."""
        return S3Key(f"tailor-{identity}", self.values[f"s3.{identity}"])

    def database_password(self, role: str) -> str:
        """A role's password; ADMIN is the superuser."""
        return self.values[f"database.{role}"]

    def kafka_password(self, user: str) -> str:
        """A user's password at a Kafka that asks for one; ADMIN is its administrator."""
        return self.values[f"kafka.{user}"]

    @property
    def kafka_users(self) -> list[str]:
        """Every user of Kafka, further publishers included."""
        names = [name.removeprefix("kafka.") for name in self.values if name.startswith("kafka.")]
        return sorted({*names} - {ADMIN, CONTROLLER})

    def store_credentials(self) -> dict[str, dict[str, str]]:
        """The credentials of every identity at the stores, as the init programs read them (`deploy/init/credentials.py`)."""
        entries = {}
        for name in sorted({*ACCESS, *self.kafka_users}):
            entries[name] = {
                "s3_access_key": self.s3(name).access_key if name in ACCESS else "",
                "s3_secret_key": self.s3(name).secret_key if name in ACCESS else "",
                "database_password": self.database_password(name) if name in WITH_DATABASE else "",
                "kafka_password": self.kafka_password(name) if name in self.kafka_users else "",
            }
        return entries

    @property
    def operator_key_sha256(self) -> str:
        """The digest of the first operator's key, which is all that the registry receives."""
        return hashlib.sha256(self.values["operator.key"].encode()).hexdigest()

    @property
    def protection_key_sha256(self) -> str:
        """The digest of data protection's first key."""
        return hashlib.sha256(self.values["protection.key"].encode()).hexdigest()

    def service_settings(self, service: str) -> dict[str, str]:
        """The secret settings of one service, apart from its credentials for the stores.

        Each secret belongs to one service. Only the quarantine key is shared, by ingestion and anonymization.
        """
        values, worker = self.values, self.s3(WORKER)
        settings = {
            "ingestion": {"QUARANTINE_KEY": values["quarantine.key"], "DIGEST_KEY": values["ingestion.digest.key"]},
            "anonymization": {
                "QUARANTINE_KEY": values["quarantine.key"],
                "VAULT_KEY": values["vault.key"],
                "VAULT_PREVIOUS_KEYS": values.get(PREVIOUS, ""),
            },
            "registry": {
                "BOOTSTRAP_OPERATOR_KEY_SHA256": self.operator_key_sha256,
                "BOOTSTRAP_PROTECTION_KEY_SHA256": self.protection_key_sha256,
            },
            "training": {"WORKER_S3_ACCESS_KEY": worker.access_key, "WORKER_S3_SECRET_KEY": worker.secret_key},
            "inference": {"DIGEST_KEY": values["inference.digest.key"]},
            "console": {"SESSION_SECRET": values["console.session"], "PASSWORD": values["console.password"]},
        }
        return {f"TAILOR_{name}": value for name, value in settings.get(service, {}).items()}


def ensure(layout: Layout) -> Secrets:
    """Read the secrets and create the missing ones. Idempotent; commands that run at the same time create them once."""
    layout.secrets.mkdir(mode=0o700, parents=True, exist_ok=True)
    layout.secrets.chmod(0o700)
    lock_file = layout.secrets / ".lock"
    lock_file.touch(mode=0o600)
    with lock_file.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _ensure(layout)


def _ensure(layout: Layout) -> Secrets:
    _ensure_identities(layout.secrets)
    file = layout.secrets / "secrets.json"
    stored: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    values = {name: stored.get(name) or create() for name, create in _makers().items()}
    # Further publishers, and the vault's previous keys.
    values |= {
        name: value for name, value in stored.items() if name.startswith("kafka.") or (name == PREVIOUS and value)
    }
    if values != stored:
        _save(layout, values)
    write(layout.operator_key_file, values["operator.key"])
    write(layout.protection_key_file, values["protection.key"])
    write(layout.console_password_file, values["console.password"])
    for user in (OPERATOR, *PUBLISHERS):
        write(layout.kafka_password_file(user), values[f"kafka.{user}"])
    return Secrets(layout.secrets, values)


def add_publishers(layout: Layout, publishers: Sequence[str]) -> None:
    """Create the passwords of further publishers. Idempotent. Raises ValueError for a name that is not a publisher's."""
    values = dict(ensure(layout).values)
    for name in publishers:
        if not PUBLISHER_NAME.fullmatch(name) or name in (ADMIN, CONTROLLER, OPERATOR, *PUBLISHERS[1:], *SERVICES):
            raise ValueError(
                f"{name!r} cannot be a publisher: use 1 to 40 of a-z, 0-9 and `-`, and no name of Tailor's own."
            )
        values.setdefault(f"kafka.{name}", _token())
    _save(layout, values)


def renew_vault_key(layout: Layout) -> None:
    """Create a new key for the vault. The old one stays among the previous keys until they are dropped."""
    values = ensure(layout).values
    previous = filter(None, (values["vault.key"], values.get(PREVIOUS)))
    _save(layout, values | {"vault.key": _key(), PREVIOUS: ",".join(previous)})


def drop_previous_vault_keys(layout: Layout) -> None:
    """Delete the vault's previous keys. Values still encrypted under one of them are lost."""
    _save(layout, ensure(layout).values | {PREVIOUS: ""})


def _save(layout: Layout, values: dict[str, str]) -> None:
    write(layout.secrets / "secrets.json", json.dumps(values, indent=1))


def write(path: Path, text: str) -> None:
    """Write a file that only its owner can read, atomically, also if another process writes it at the same time."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    partial = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        partial.replace(path)
    except BaseException:
        partial.unlink()
        raise


def _makers() -> dict[str, Callable[[], str]]:
    makers: dict[str, Callable[[], str]] = {f"s3.{name}": _token for name in (ADMIN, *ACCESS)}
    makers |= {f"database.{name}": _token for name in (ADMIN, *WITH_DATABASE)}
    makers |= {f"kafka.{name}": _token for name in (ADMIN, CONTROLLER, *KAFKA_USERS)}
    makers |= {f"store.{name}": _token for name in STORE_TOKENS}
    makers |= {f"{name}.key": _key for name in ("quarantine", "vault", "ingestion.digest", "inference.digest")}
    makers |= dict.fromkeys(("operator.key", "protection.key"), lambda: f"tlr_{_token()}")
    makers["console.session"] = _token
    makers["console.password"] = lambda: secrets.token_urlsafe(12)
    return makers


def _token() -> str:
    return secrets.token_urlsafe(32)


def _key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


def _ensure_identities(directory: Path) -> None:
    trust: dict[str, str] = {}
    for identity in IDENTITIES:
        file = directory / f"{identity}.pem"
        if not file.exists():
            write(file, _private_pem(Ed25519PrivateKey.generate()))
        key = serialization.load_pem_private_key(file.read_bytes(), password=None)
        trust[identity] = (
            key.public_key()
            .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
            .decode()
        )
    write(directory / "trust.json", json.dumps(trust, indent=1))


def _private_pem(key: Ed25519PrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
