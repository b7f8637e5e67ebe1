"""Services identify themselves by short-lived tokens (JWT, RFC 7519), signed with their own Ed25519 key (EdDSA, RFC 8037)."""

import json
import time
from collections.abc import Mapping
from pathlib import Path

import jwt
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from tailor.errors import InvalidArgument, Reason, Unauthenticated

LIFETIME_SECONDS = 60
ALGORITHM = "EdDSA"


class Identity:
    """A service's private key. Issues tokens, each for one audience."""

    def __init__(self, service: str, key: Ed25519PrivateKey) -> None:
        self.service = service
        self._key = key
        self._tokens: dict[str, tuple[float, str]] = {}

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
        """A token for calls to one service, valid for at least half a minute."""
        now = time.time()
        expiry, token = self._tokens.get(audience, (0.0, ""))
        if expiry - now < LIFETIME_SECONDS / 2:
            expiry = now + LIFETIME_SECONDS
            claims = {"iss": self.service, "aud": audience, "iat": int(now), "exp": int(expiry)}
            token = jwt.encode(claims, self._key, algorithm=ALGORITHM)
            self._tokens[audience] = (expiry, token)
        return token

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


class Trust:
    """The public keys of all trusted services."""

    def __init__(self, keys: Mapping[str, Ed25519PublicKey]) -> None:
        self._keys = dict(keys)

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
        """The service that signed the token for this audience. Raises Unauthenticated (UNKNOWN_SERVICE, INVALID_TOKEN)."""
        try:
            claimed = jwt.decode(token, options={"verify_signature": False}).get("iss")
            key = self._keys.get(claimed) if isinstance(claimed, str) else None
            if key is None:
                raise Unauthenticated(Reason.UNKNOWN_SERVICE, "The service that issued the token is not trusted.")
            jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                audience=audience,
                issuer=claimed,
                leeway=10,
                options={"require": ["exp", "iat", "aud", "iss"]},
            )
        except jwt.PyJWTError:
            raise Unauthenticated(
                Reason.INVALID_TOKEN,
                "The service token is not valid: expired, for another service, or not signed by its issuer.",
            ) from None
        return str(claimed)
