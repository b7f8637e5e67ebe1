"""API keys: made, revoked and verified. A secret is shown once; its SHA-256 is kept."""

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from services.registry.domain import MAX_CALLS_PER_MINUTE, ApiKey
from services.registry.handlers import Begin, held_specialist, unknown_specialist
from tailor.errors import InvalidArgument, NotFound, Reason

KEY_PREFIX = "tlr_"


@dataclass(frozen=True)
class KeyTerms:
    """What a new key is for and what it may do."""

    name: str
    role: str
    specialists: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    calls_per_minute: int = 0
    expire_time: datetime | None = None


def create_key(begin: Begin, terms: KeyTerms, may_use: Callable[[str], bool]) -> tuple[ApiKey, str]:
    """Make a key; the key and its secret, which is kept nowhere. NotFound for a specialist that is unknown or not the maker's own."""
    wrong = {}
    if not terms.name.strip() or len(terms.name) > 64:
        wrong["name"] = "1 to 64 characters."
    if not 0 <= terms.calls_per_minute <= MAX_CALLS_PER_MINUTE:
        wrong["calls_per_minute"] = f"0 to {MAX_CALLS_PER_MINUTE}."
    if wrong:
        raise InvalidArgument(Reason.INVALID_KEY, "The key's terms are wrong.", field_violations=wrong)
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
    )
    with begin() as tx:
        for specialist in terms.specialists:
            if not may_use(specialist):
                raise unknown_specialist()
            held_specialist(tx, specialist)
        tx.save_key(key, hashlib.sha256(secret.encode()).hexdigest())
    return key, secret


def revoke_key(begin: Begin, key_id: str, may_hold: Callable[[ApiKey], bool]) -> ApiKey:
    """End a key; again, it changes nothing. NotFound for one that is unknown or more than the caller may hold."""
    with begin() as tx:
        key = tx.key(key_id)
        if key is None or not may_hold(key):
            raise NotFound(Reason.UNKNOWN_KEY, "There is no such key; `tailor keys list` lists them.")
        revoked = replace(key, revoked=True)
        tx.save_key(revoked, "")
        return revoked


def verify_key(begin: Begin, secret_sha256: str) -> ApiKey:
    """The living key with this hash; NotFound otherwise."""
    with begin() as tx:
        key = tx.key_by_hash(secret_sha256)
    if key is None or not key.alive(datetime.now(UTC)):
        raise NotFound(Reason.UNKNOWN_KEY, "The API key is unknown, expired or revoked.")
    return key


def install_operator_key(begin: Begin, secret_sha256: str) -> None:
    """The key that an installation begins with; its secret was made outside."""
    with begin() as tx:
        if tx.key_by_hash(secret_sha256) is None:
            tx.save_key(
                ApiKey(f"key_{secret_sha256[:16]}", "bootstrap operator", "ROLE_OPERATOR", (), datetime.now(UTC)),
                secret_sha256,
            )
