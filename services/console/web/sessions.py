"""Sessions: who is signed in, in a signed cookie; and the limits on trying passwords."""

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
TRIES_PER_MINUTE = 6
TRIES_PER_MINUTE_OF_ALL = 60


@dataclass(frozen=True)
class Session:
    """A browser's session: its CSRF token, and the visitor once signed in."""

    csrf: str
    visitor: Visitor | None = None

    @classmethod
    def new(cls, visitor: Visitor | None = None) -> "Session":
        """A session with a token of its own."""
        return cls(secrets.token_urlsafe(24), visitor)


class SessionCodec:
    """Writes and reads the cookie. It is signed, not encrypted: of an API key it holds only the hash."""

    def __init__(self, secret: SecretStr) -> None:
        self._serializer = URLSafeTimedSerializer(
            secret.get_secret_value(),
            salt="tailor.console.session",
            signer_kwargs={"digest_method": hashlib.sha256, "key_derivation": "hmac"},
        )

    def write(self, session: Session) -> str:
        """The cookie's value."""
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

    def read(self, cookie: str) -> Session | None:
        """The session; none for a cookie that is forged, damaged or too old."""
        try:
            content = self._serializer.loads(cookie, max_age=LIFETIME_SECONDS)
        except BadSignature:
            return None
        visitor = None
        if "visitor" in content:
            name, role, specialists, key_id, key_sha256 = content["visitor"]
            visitor = Visitor(name, Role(role), frozenset(specialists), key_id, key_sha256)
        return Session(content["csrf"], visitor)


class Throttle:
    """Counts failed tries in the last minute, by address and in all."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._tries: deque[tuple[float, str]] = deque(maxlen=1_000)
        self._lock = threading.Lock()

    def check(self, address: str) -> None:
        """ResourceExhausted where too many tries failed lately."""
        with self._lock:
            since = self._now() - 60
            while self._tries and self._tries[0][0] <= since:
                self._tries.popleft()
            mine = sum(who == address for _, who in self._tries)
            if mine >= TRIES_PER_MINUTE or len(self._tries) >= TRIES_PER_MINUTE_OF_ALL:
                raise ResourceExhausted(
                    Reason.TOO_MANY_TRIES, "Too many failed tries; wait a minute.", retry_after_seconds=60
                )

    def failed(self, address: str) -> None:
        """Note a failed try."""
        with self._lock:
            self._tries.append((self._now(), address))


@dataclass
class Doorkeeper:
    """Lets people in by password or API key, and looks again whether a key still lives."""

    password: SecretStr | None
    verify_key: Callable[[str], Visitor]
    throttle: Throttle = field(default_factory=Throttle)
    now: Callable[[], float] = time.monotonic
    _known: dict[str, tuple[float, Visitor]] = field(default_factory=dict)

    def admit(self, secret: str, address: str) -> Visitor:
        """The visitor; Unauthenticated for a wrong secret, ResourceExhausted after too many, Unavailable without registry."""
        self.throttle.check(address)
        secret = secret.strip()[:MAX_SECRET_CHARS]
        if secret.startswith(KEY_PREFIX):
            try:
                return self.verify_key(hashlib.sha256(secret.encode()).hexdigest())
            except NotFound:
                pass
        elif self.password and self._is_password(secret):
            return Visitor("operator", Role.OPERATOR)
        self.throttle.failed(address)
        raise Unauthenticated(Reason.WRONG_SECRET, "This is neither the password nor a living API key.")

    def _is_password(self, secret: str) -> bool:
        expected = self.password.get_secret_value() if self.password else ""
        return bool(expected) and hmac.compare_digest(secret.encode(), expected.encode())

    def still(self, visitor: Visitor) -> Visitor:
        """The visitor as the registry knows it within seconds; Unauthenticated once the key was revoked."""
        if not visitor.key_sha256:
            return visitor
        expiry, known = self._known.get(visitor.key_sha256, (0.0, visitor))
        if self.now() < expiry:
            return known
        try:
            fresh = self.verify_key(visitor.key_sha256)
        except NotFound:
            self._known.pop(visitor.key_sha256, None)
            raise Unauthenticated(Reason.UNKNOWN_KEY, "The API key was revoked or has expired.") from None
        if len(self._known) > 1_000:
            self._known.clear()
        self._known[visitor.key_sha256] = (self.now() + KEY_CACHE_SECONDS, fresh)
        return fresh
