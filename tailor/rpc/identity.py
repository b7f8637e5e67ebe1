"""Services identify themselves by single-use tokens (JWT, RFC 7519), signed with their own Ed25519 key (EdDSA, RFC 8037)."""

import json
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jwt
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from jwt.api_jws import PyJWS

from tailor.errors import InvalidArgument, Reason, Unauthenticated

LIFETIME_SECONDS = 60
# How far the clocks of two services may differ.
LEEWAY_SECONDS = 10
MAX_ID_CHARS = 64
ALGORITHM = "EdDSA"
# Splits tokens; reading them a second time to verify them would cost a third as much as verifying the signature.
PARSER = PyJWS(algorithms=[ALGORITHM])


class Identity:
    """A service's private key. Issues tokens, each for one call to one audience. `now` is the time in seconds since the epoch."""

    def __init__(self, service: str, key: Ed25519PrivateKey, now: Callable[[], float] = time.time) -> None:
        self.service = service
        self._key = key
        self._now = now

    @classmethod
    def load(cls, service: str, path: Path) -> "Identity":
        """Read the private key (PEM). Raises InvalidArgument (INVALID_IDENTITY_KEY)."""
        try:
            key = load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError):
            raise InvalidArgument(
                Reason.INVALID_IDENTITY_KEY, "TAILOR_IDENTITY_KEY_FILE must name a readable Ed25519 private key (PEM)."
            ) from None
        if not isinstance(key, Ed25519PrivateKey):
            raise InvalidArgument(Reason.INVALID_IDENTITY_KEY, "The identity key must be an Ed25519 key.")
        return cls(service, key)

    def token(self, audience: str) -> str:
        """A token for one call to one service.

        It is made at each call: a stored one would be refused as used, and as issued in the future once the clock is set back.
        """
        now = int(self._now())
        claims = {"iss": self.service, "aud": audience, "iat": now, "exp": now + LIFETIME_SECONDS}
        return jwt.encode(claims | {"jti": secrets.token_urlsafe(16)}, self._key, algorithm=ALGORITHM)

    def sign(self, data: bytes) -> bytes:
        """An Ed25519 signature that `public_key` verifies."""
        return self._key.sign(data)

    def verify(self, data: bytes, signature: bytes) -> bool:
        """True if this key signed the data."""
        try:
            self._key.public_key().verify(signature, data)
        except InvalidSignature:
            return False
        return True

    @property
    def public_key(self) -> bytes:
        """The public key, 32 bytes."""
        return self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


class UsedTokens:
    """Remembers the ids of tokens for as long as they are valid. Thread-safe.

    Only ids of verified tokens get here, so the calls that this process can serve in that time bound their number.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._since = now()
        self._recent: set[str] = set()
        self._older: set[str] = set()

    def use(self, token_id: str) -> bool:
        """True if this is the first use."""
        with self._lock:
            passed = self._now() - self._since
            if passed >= LIFETIME_SECONDS + 2 * LEEWAY_SECONDS:
                # Ids of `_recent` are kept for one more period; after two, nothing known can still be valid.
                self._older = self._recent if passed < 2 * (LIFETIME_SECONDS + 2 * LEEWAY_SECONDS) else set()
                self._recent, self._since = set(), self._now()
            if token_id in self._recent or token_id in self._older:
                return False
            self._recent.add(token_id)
            return True


class Trust:
    """The public keys of all trusted services. `now` is the time in seconds since the epoch."""

    def __init__(self, keys: Mapping[str, Ed25519PublicKey], now: Callable[[], float] = time.time) -> None:
        self._keys = dict(keys)
        self._now = now
        self._used = UsedTokens()

    @classmethod
    def load(cls, path: Path) -> "Trust":
        """Read `{"service": "public key PEM"}`. Raises InvalidArgument (INVALID_TRUST_FILE)."""
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))
            keys = {name: load_pem_public_key(pem.encode()) for name, pem in entries.items()}
        except (OSError, ValueError, AttributeError):
            raise InvalidArgument(
                Reason.INVALID_TRUST_FILE, "TAILOR_TRUST_FILE must name a JSON object of services' public keys (PEM)."
            ) from None
        return cls({name: key for name, key in keys.items() if isinstance(key, Ed25519PublicKey)})

    def verify(self, token: str, audience: str) -> str:
        """The service that signed the token for one call to this audience. Raises Unauthenticated (UNKNOWN_SERVICE, INVALID_TOKEN).

        A process accepts a token once; it cannot know what another replica accepted.
        """
        header, claims, signature = _read(token)
        issuer = claims.get("iss")
        key = self._keys.get(issuer) if isinstance(issuer, str) else None
        if key is None and claims:
            raise Unauthenticated(Reason.UNKNOWN_SERVICE, "The service that issued the token is not trusted.")
        is_signed = key is not None and header.get("alg") == ALGORITHM and _is_signed(key, token, signature)
        if not is_signed or not _is_for(claims, audience, self._now()) or not self._used.use(claims["jti"]):
            raise Unauthenticated(
                Reason.INVALID_TOKEN,
                "The service token is not valid: expired, used before, for another service, or not signed by its issuer.",
            )
        return str(issuer)


def _read(token: str) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """Header, claims and signature of a token, not verified; empty if it is not a token, or uses an extension of the format."""
    try:
        parts = PARSER.decode_complete(token, options={"verify_signature": False})
        claims = json.loads(parts["payload"])
    except (jwt.PyJWTError, ValueError, RecursionError):
        return {}, {}, b""
    if "crit" in parts["header"] or not isinstance(claims, dict):
        return {}, {}, b""
    return parts["header"], claims, parts["signature"]


def _is_signed(key: Ed25519PublicKey, token: str, signature: bytes) -> bool:
    try:
        key.verify(signature, token.rpartition(".")[0].encode())
    except InvalidSignature:
        return False
    return True


def _is_for(claims: Mapping[str, Any], audience: str, now: float) -> bool:
    """True if the claims are for this audience, valid now, and no longer than those of `Identity`, even if their signer wrote otherwise."""
    issued, expiry, token_id = claims.get("iat"), claims.get("exp"), claims.get("jti")
    if type(issued) is not int or type(expiry) is not int or not isinstance(token_id, str):
        return False
    if claims.get("aud") != audience or not 0 < len(token_id) <= MAX_ID_CHARS:
        return False
    return issued - LEEWAY_SECONDS <= now < expiry + LEEWAY_SECONDS and expiry - issued <= LIFETIME_SECONDS
