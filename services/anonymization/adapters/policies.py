"""The policies that are and were in force, in PostgreSQL. Their text is encrypted like the vault, because a policy may list names.

A change of the table needs a migration in `migrations/versions/`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from sqlalchemy import BigInteger, Column, DateTime, Engine, Identity, LargeBinary, MetaData, Row, String, Table, func

from services.anonymization.domain import InstalledPolicy
from services.anonymization.vault.keyring import Keyring, reseal
from tailor.api.anonymization.v1.policy_pb2 import ListPoliciesRequest
from tailor.errors import NotFound, Reason
from tailor.listing import Listing, ListPage
from tailor.rows import Rows
from tailor.sql import acquire_lock, transaction

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


class SqlPolicies:
    """The policies that are and were in force. Thread-safe, also across replicas."""

    def __init__(self, engine: Engine, keys: Keyring) -> None:
        self._engine = engine
        self._keys = keys
        self._installed = Rows(engine, POLICIES, InstalledPolicy, "generation")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lock under which replicas install what their settings say."""
        with transaction(self._engine) as connection:
            acquire_lock(connection, LOCK)
            yield

    def install(self, source: bytes, digest: str, detectors: str, caller: str, *, is_file: bool = False) -> None:
        """Put a policy in TOML in force. `is_file` marks that of the settings."""
        sealed = self._keys.seal(source, _place(digest))
        Rows(self._engine, POLICIES, Row).insert(
            policy_digest=digest,
            detectors_digest=detectors,
            file_digest=digest if is_file else "",
            installed_by=caller[:128],
            create_time=datetime.now(UTC),
            **vars(sealed),
        )

    def find_newest(self) -> InstalledPolicy | None:
        """What is in force, or None."""
        return self._installed.newest()

    def newest_generation(self) -> int:
        """The generation of what is in force; 0 if nothing is."""
        return int(self._installed.value(func.max(POLICIES.c.generation)) or 0)

    def newest(self) -> tuple[InstalledPolicy, bytes]:
        """What is in force, and its TOML. Raises NotFound if nothing is."""
        row = Rows(self._engine, POLICIES, Row, "generation").newest()
        if row is None:
            raise NotFound(Reason.NOT_FOUND, "No policy is in force.")
        source = self._keys.open(row, _place(row.policy_digest))
        return self._installed.read(row), source

    def newest_file(self) -> str:
        """The digest of the last policy that came from the settings; empty if none did."""
        row = Rows(self._engine, POLICIES, Row, "generation").newest(POLICIES.c.file_digest != "")
        return "" if row is None else str(row.file_digest)

    def list(self, request: ListPoliciesRequest) -> ListPage[InstalledPolicy]:
        """The newest first."""
        listing = Listing(self._installed, request, POLICIES.c.generation, descending=True)
        return listing.page(self._installed.select())


def rotate_policies(engine: Engine, keys: Keyring) -> int:
    """Encrypt every policy with the current key. May be killed and run again. Returns the number of policies changed."""
    return reseal(engine, keys, POLICIES, lambda row: _place(row.policy_digest))


def _place(digest: str) -> str:
    return f"policy/{digest}"
