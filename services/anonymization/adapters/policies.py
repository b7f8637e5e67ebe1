"""The policies that are and were in force, in PostgreSQL. Their text is encrypted like the vault, because a policy may list names.

A change of the table needs a migration in `migrations/versions/`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Engine,
    Identity,
    LargeBinary,
    MetaData,
    Row,
    String,
    Table,
    func,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from services.anonymization.domain import InstalledPolicy
from services.anonymization.ports import Policies
from services.anonymization.vault.keyring import Keyring, Sealed
from tailor.errors import NotFound, Reason
from tailor.sql import transaction

METADATA = MetaData()
POLICIES = Table(
    "policies",
    METADATA,
    Column("generation", BigInteger, Identity(), primary_key=True),
    Column("policy_digest", String(64), nullable=False),
    Column("detectors_digest", String(64), nullable=False),
    # The digest of the file of the settings, if the policy comes from it; otherwise empty.
    Column("file_digest", String(64), nullable=False),
    Column("installed_by", String(128), nullable=False),
    Column("key_id", String(16), nullable=False),
    Column("ciphertext", LargeBinary, nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False),
)
LOCK = 7_461_301


class SqlPolicies(Policies):
    """Thread-safe, also across replicas."""

    def __init__(self, engine: Engine, keys: Keyring) -> None:
        self._engine = engine
        self._keys = keys

    @contextmanager
    def lock(self) -> Iterator[None]:
        with transaction(self._engine) as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
            yield

    def install(self, source: bytes, digest: str, detectors: str, caller: str, *, is_file: bool = False) -> None:
        sealed = self._keys.seal(source, _place(digest))
        row = {
            "policy_digest": digest,
            "detectors_digest": detectors,
            "file_digest": digest if is_file else "",
            "installed_by": caller[:128],
            "key_id": sealed.key_id,
            "ciphertext": sealed.data,
            "create_time": datetime.now(UTC),
        }
        with transaction(self._engine) as connection:
            connection.execute(insert(POLICIES).values(row))

    def find_newest(self) -> InstalledPolicy | None:
        return next(iter(self.list(None, 1)), None)

    def newest_generation(self) -> int:
        with transaction(self._engine) as connection:
            return connection.scalar(select(func.max(POLICIES.c.generation))) or 0

    def newest(self) -> tuple[InstalledPolicy, bytes]:
        query = select(POLICIES).order_by(POLICIES.c.generation.desc()).limit(1)
        with transaction(self._engine) as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise NotFound(Reason.NOT_FOUND, "No policy is in force.")
        return _to_installed(row), self._keys.open(Sealed(row.key_id, row.ciphertext), _place(row.policy_digest))

    def newest_file(self) -> str:
        is_file = POLICIES.c.file_digest != ""
        query = select(POLICIES.c.file_digest).where(is_file).order_by(POLICIES.c.generation.desc()).limit(1)
        with transaction(self._engine) as connection:
            return connection.scalar(query) or ""

    def list(self, before: int | None, limit: int) -> Sequence[InstalledPolicy]:
        query = select(POLICIES).order_by(POLICIES.c.generation.desc()).limit(limit)
        if before is not None:
            query = query.where(POLICIES.c.generation < before)
        with transaction(self._engine) as connection:
            return [_to_installed(row) for row in connection.execute(query)]


def rotate_policies(engine: Engine, keys: Keyring) -> int:
    """Encrypt every policy with the current key. May be killed and run again. Returns the number of policies changed."""
    old = select(POLICIES).where(POLICIES.c.key_id != keys.current_id).with_for_update()
    with transaction(engine) as connection:
        rows = connection.execute(old).all()
        for row in rows:
            place = _place(row.policy_digest)
            sealed = keys.seal(keys.open(Sealed(row.key_id, row.ciphertext), place), place)
            changed = {"key_id": sealed.key_id, "ciphertext": sealed.data}
            connection.execute(update(POLICIES).where(POLICIES.c.generation == row.generation).values(changed))
    return len(rows)


def _place(digest: str) -> str:
    return f"policy/{digest}"


def _to_installed(row: Row) -> InstalledPolicy:  # type: ignore[type-arg]
    return InstalledPolicy(row.generation, row.policy_digest, row.detectors_digest, row.installed_by, row.create_time)
