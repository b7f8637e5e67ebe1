"""API keys. A secret is returned once; only its SHA-256 is stored."""

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from services.registry.adapters.sql import Begin
from services.registry.domain import ApiKey, KeyTerms
from services.registry.handlers.specialists import lock_specialist, unknown_specialist
from tailor.errors import InvalidArgument, NotFound, PermissionDenied, Reason
from tailor.logging import get_logger

log = get_logger(__name__)

KEY_PREFIX = "tlr_"
MAX_NAME_CHARS = 64
MAX_CALLS_PER_MINUTE = 1_000_000
OPERATOR, DATA_PROTECTION = "ROLE_OPERATOR", "ROLE_DATA_PROTECTION"
INSTALLATION = "installation"
LESSER = frozenset({"ROLE_CALLER", "ROLE_EXPERT", "ROLE_ENGINEER"})
# The roles that the holder of a role gives. Nobody gives more than they have: what data protection may do, operators may not.
GIVES = {OPERATOR: LESSER | {OPERATOR}, DATA_PROTECTION: frozenset({DATA_PROTECTION})}


def check_role(role: str, giver: str) -> None:
    """Raises PermissionDenied (ROLE_NOT_YOURS_TO_GIVE) if the holder of a role, or a service (empty), may not give a role to a new key."""
    if role in GIVES.get(giver, LESSER):
        return
    if role == DATA_PROTECTION:
        raise PermissionDenied(
            Reason.ROLE_NOT_YOURS_TO_GIVE,
            "Only a key of data protection gives this role. The installation's first is in `protection.key`, next to `operator.key`.",
        )
    raise PermissionDenied(
        Reason.ROLE_NOT_YOURS_TO_GIVE,
        "Operators give every role but data protection, data protection gives only its own, and the console gives caller, expert and "
        "engineer.",
    )


def check_terms(terms: KeyTerms) -> None:
    """Raises InvalidArgument (INVALID_KEY) for terms that no key may have."""
    violations = {}
    if not terms.name.strip() or len(terms.name) > MAX_NAME_CHARS:
        violations["name"] = f"must have 1 to {MAX_NAME_CHARS} characters"
    if not 0 <= terms.calls_per_minute <= MAX_CALLS_PER_MINUTE:
        violations["calls_per_minute"] = f"must be 0 to {MAX_CALLS_PER_MINUTE}"
    if violations:
        raise InvalidArgument(Reason.INVALID_KEY, "The key's terms are invalid.", field_violations=violations)


def create_key(begin: Begin, terms: KeyTerms, may_use: Callable[[str], bool], created_by: str) -> tuple[ApiKey, str]:
    """Create a key and return it with its secret. `created_by` is as in `ApiKey`.

    Raises NotFound for a specialist that is unknown or that the creator may not use, and InvalidArgument for a key that would outlive its
    creator's.
    """
    check_terms(terms)
    secret = KEY_PREFIX + secrets.token_urlsafe(32)
    key = ApiKey(
        key_id=f"key_{secrets.token_hex(8)}",
        name=terms.name,
        role=terms.role,
        specialists=terms.specialists,
        create_time=datetime.now(UTC),
        expire_time=terms.expire_time,
        methods=terms.methods,
        calls_per_minute=terms.calls_per_minute,
        created_by=created_by,
    )
    with begin() as tx:
        _check_expiry(terms.expire_time, tx.keys.find(key_id=created_by.rpartition(":")[2]))
        for specialist in terms.specialists:
            if not may_use(specialist):
                raise unknown_specialist()
            lock_specialist(tx.specialists, specialist)
        tx.keys.insert(key, secret_sha256=hashlib.sha256(secret.encode()).hexdigest())
    log.info("key created", key_id=key.key_id, role=key.role, created_by=created_by)
    return key, secret


def _check_expiry(expire_time: datetime | None, creator: ApiKey | None) -> None:
    """Raises InvalidArgument (INVALID_KEY) for a key that would still be valid after its creator's has expired."""
    if creator is None or creator.expire_time is None:
        return
    if expire_time is None or expire_time > creator.expire_time:
        end = creator.expire_time.astimezone(UTC)
        raise InvalidArgument(
            Reason.INVALID_KEY,
            "Your key expires, so a new key must expire too.",
            field_violations={
                "expire_time": f"must be at the latest {end:%Y-%m-%d %H:%M} UTC, when your own key expires"
            },
        )


def revoke_key(begin: Begin, key_id: str, may_manage: Callable[[ApiKey], bool], revoked_by: str) -> ApiKey:
    """Revoke a key; idempotent. Raises NotFound for a key that is unknown or that the caller may not manage."""
    with begin() as tx:
        key = tx.keys.find(key_id=key_id)
        if key is None or not may_manage(key):
            raise NotFound(Reason.UNKNOWN_KEY, "This key does not exist. `tailor key list` lists those you can manage.")
        revoked = replace(key, revoked=True)
        tx.keys.update({"revoked": True}, key_id=key_id)
    log.info("key revoked", key_id=key_id, revoked_by=revoked_by)
    return revoked


def verify_key(begin: Begin, secret_sha256: str) -> ApiKey:
    """The valid key with this hash. Raises NotFound otherwise."""
    with begin() as tx:
        key = tx.keys.find(secret_sha256=secret_sha256)
    if key is None or not key.is_valid(datetime.now(UTC)):
        raise NotFound(Reason.UNKNOWN_KEY, "The API key is unknown, expired or revoked.")
    return key


def install_key(begin: Begin, secret_sha256: str, name: str, role: str) -> None:
    """Store the installation's first key of a role, whose secret was created elsewhere. Idempotent."""
    with begin() as tx:
        if tx.keys.find(secret_sha256=secret_sha256) is None:
            key_id = f"key_{secret_sha256[:16]}"
            key = ApiKey(key_id, name, role, (), datetime.now(UTC), created_by=INSTALLATION)
            tx.keys.insert(key, secret_sha256=secret_sha256)
