"""Sessions in a signed cookie, and the limits on sign-in attempts."""

import hashlib
import hmac
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from itsdangerous import BadSignature, URLSafeTimedSerializer
from pydantic import SecretStr

from services.console.domain import Role, Visitor
from tailor.errors import NotFound, Reason, ResourceExhausted, Unauthenticated

COOKIE = "tailor_session"
LIFETIME_SECONDS = 8 * 3600
KEY_CACHE_SECONDS = 3.0
KEY_PREFIX = "tlr_"
MAX_SECRET_CHARS = 512
ATTEMPTS_PER_MINUTE = 6
TOTAL_ATTEMPTS_PER_MINUTE = 60


@dataclass(frozen=True)
class BrowserSession:
    """A browser's CSRF token, and the visitor once they have signed in."""

    csrf: str
    visitor: Visitor | None = None

    @classmethod
    def new(cls, visitor: Visitor | None = None) -> "BrowserSession":
        """A session with a new CSRF token."""
        return cls(secrets.token_urlsafe(24), visitor)


class SessionCodec:
    """Writes and reads the cookie. It is signed, not encrypted, so it contains only the hash of an API key."""

    def __init__(self, secret: SecretStr) -> None:
        self._serializer = URLSafeTimedSerializer(
            secret.get_secret_value(),
            salt="tailor.console.session",
            signer_kwargs={"digest_method": hashlib.sha256, "key_derivation": "hmac"},
        )

    def write(self, session: BrowserSession) -> str:
        content: dict[str, object] = {"csrf": session.csrf}
        if session.visitor:
            visitor = session.visitor
            content["visitor"] = [
                visitor.name,
                visitor.role.value,
                sorted(visitor.specialists),
                visitor.key_id,
                visitor.key_sha256,
            ]
        return str(self._serializer.dumps(content))

    def read(self, cookie: str) -> BrowserSession | None:
        """The session; None if the cookie is forged, damaged or expired."""
        try:
            content = self._serializer.loads(cookie, max_age=LIFETIME_SECONDS)
        except BadSignature:
            return None
        visitor = None
        if "visitor" in content:
            name, role, specialists, key_id, key_sha256 = content["visitor"]
            visitor = Visitor(name, Role(role), frozenset(specialists), key_id, key_sha256)
        return BrowserSession(content["csrf"], visitor)


class Throttle:
    """Counts failed sign-in attempts in the last minute, per address and in total. Thread-safe."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._attempts: deque[tuple[float, str]] = deque(maxlen=1_000)
        self._lock = threading.Lock()

    def check(self, address: str) -> None:
        """Raises ResourceExhausted after too many failed attempts."""
        with self._lock:
            since = self._now() - 60
            while self._attempts and self._attempts[0][0] <= since:
                self._attempts.popleft()
            failed = sum(known == address for _, known in self._attempts)
            if failed >= ATTEMPTS_PER_MINUTE or len(self._attempts) >= TOTAL_ATTEMPTS_PER_MINUTE:
                raise ResourceExhausted(
                    Reason.TOO_MANY_TRIES, "Too many failed attempts. Wait a minute.", retry_after_seconds=60
                )

    def record_failure(self, address: str) -> None:
        with self._lock:
            self._attempts.append((self._now(), address))


@dataclass
class Doorkeeper:
    """Checks passwords and API keys at sign-in, and keys again while a session lasts."""

    password: SecretStr | None
    verify_key: Callable[[str], Visitor]
    throttle: Throttle = field(default_factory=Throttle)
    now: Callable[[], float] = time.monotonic
    _known: dict[str, tuple[float, Visitor]] = field(default_factory=dict)

    def admit(self, secret: str, address: str) -> Visitor:
        """The visitor. Raises Unauthenticated for a wrong secret, ResourceExhausted after too many, Unavailable without the registry."""
        self.throttle.check(address)
        secret = secret.strip()[:MAX_SECRET_CHARS]
        if secret.startswith(KEY_PREFIX):
            try:
                return self.verify_key(hashlib.sha256(secret.encode()).hexdigest())
            except NotFound:
                pass
        elif self.password and self._is_password(secret):
            return Visitor("operator", Role.OPERATOR)
        self.throttle.record_failure(address)
        raise Unauthenticated(Reason.WRONG_SECRET, "This is neither the password nor a valid API key.")

    def _is_password(self, secret: str) -> bool:
        expected = self.password.get_secret_value() if self.password else ""
        return bool(expected) and hmac.compare_digest(secret.encode(), expected.encode())

    def refresh(self, visitor: Visitor) -> Visitor:
        """The visitor as the registry knows them, at most 3 seconds old. Raises Unauthenticated once the key is revoked or expired."""
        if not visitor.key_sha256:
            return visitor
        expiry, known = self._known.get(visitor.key_sha256, (0.0, visitor))
        if self.now() < expiry:
            return known
        try:
            fresh = self.verify_key(visitor.key_sha256)
        except NotFound:
            self._known.pop(visitor.key_sha256, None)
            raise Unauthenticated(Reason.UNKNOWN_KEY, "The API key has been revoked or has expired.") from None
        if len(self._known) > 1_000:
            self._known.clear()
        self._known[visitor.key_sha256] = (self.now() + KEY_CACHE_SECONDS, fresh)
        return fresh
