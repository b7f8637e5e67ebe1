"""Sessions in a signed cookie, which of them are open, and the limits on sign-in attempts."""

import hashlib
import hmac
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from itsdangerous import BadSignature, URLSafeTimedSerializer
from pydantic import SecretStr

from services.console.domain import Role, Visitor
from tailor.errors import NotFound, Reason, ResourceExhausted, Unauthenticated

COOKIE = "tailor_session"
LIFETIME_SECONDS = 8 * 3600
# With the checks of streams each second, a revoked key ends within three.
KEY_CACHE_SECONDS = 2.0
MAX_OPEN_SESSIONS = 10_000
KEY_PREFIX = "tlr_"
MAX_SECRET_CHARS = 512
ATTEMPTS_PER_MINUTE = 6
TOTAL_ATTEMPTS_PER_MINUTE = 60


@dataclass(frozen=True)
class BrowserSession:
    """A browser's CSRF token, and the visitor and the session's id once they have signed in."""

    csrf: str
    visitor: Visitor | None = None
    id: str = ""

    @classmethod
    def new(cls, visitor: Visitor | None = None, id: str = "") -> "BrowserSession":
        """A session with a new CSRF token."""
        return cls(secrets.token_urlsafe(24), visitor, id)


class OpenSessions:
    """The ids of the sessions that nobody has signed out of. In memory: a restart of the console ends all. Thread-safe."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._ends: dict[str, float] = {}
        self._lock = threading.Lock()

    def begin(self) -> str:
        """The id of a new session. Beyond MAX_OPEN_SESSIONS, the oldest one ends."""
        session_id = secrets.token_urlsafe(24)
        with self._lock:
            while len(self._ends) >= MAX_OPEN_SESSIONS:
                del self._ends[next(iter(self._ends))]
            self._ends[session_id] = self._now() + LIFETIME_SECONDS
        return session_id

    def is_open(self, session_id: str) -> bool:
        """True until the session is ended, or has lasted for LIFETIME_SECONDS."""
        with self._lock:
            return self._now() < self._ends.get(session_id, 0.0)

    def end(self, session_id: str) -> None:
        """End a session. Idempotent."""
        with self._lock:
            self._ends.pop(session_id, None)


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
                session.id,
            ]
        return str(self._serializer.dumps(content))

    def read(self, cookie: str) -> BrowserSession | None:
        """The session; None if the cookie is forged, damaged or expired."""
        try:
            content = self._serializer.loads(cookie, max_age=LIFETIME_SECONDS)
        except BadSignature:
            return None
        if "visitor" not in content:
            return BrowserSession(content["csrf"])
        try:
            name, role, specialists, key_id, key_sha256, session_id = content["visitor"]
        except ValueError:
            # Signed by an earlier release, whose sessions had no id.
            return None
        visitor = Visitor(name, Role(role), frozenset(specialists), key_id, key_sha256)
        return BrowserSession(content["csrf"], visitor, session_id)


class Throttle:
    """Limits failed sign-in attempts in the last minute, per address and in total. Thread-safe."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._attempts: deque[tuple[float, str, object]] = deque()
        self._lock = threading.Lock()

    @contextmanager
    def attempt(self, address: str) -> Iterator[None]:
        """An attempt. It counts from its beginning, because many may run at once, and after its end if the block raises Unauthenticated.

        Raises ResourceExhausted after too many.
        """
        attempt = self._begin(address)
        failed = False
        try:
            yield
        except Unauthenticated:
            failed = True
            raise
        finally:
            with self._lock, suppress(ValueError):
                if not failed:
                    self._attempts.remove(attempt)

    def _begin(self, address: str) -> tuple[float, str, object]:
        with self._lock:
            since = self._now() - 60
            while self._attempts and self._attempts[0][0] <= since:
                self._attempts.popleft()
            failed = sum(known == address for _, known, _ in self._attempts)
            if failed >= ATTEMPTS_PER_MINUTE or len(self._attempts) >= TOTAL_ATTEMPTS_PER_MINUTE:
                raise ResourceExhausted(
                    Reason.TOO_MANY_TRIES, "Too many failed attempts. Wait a minute.", retry_after_seconds=60
                )
            attempt = (self._now(), address, object())
            self._attempts.append(attempt)
            return attempt


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
        with self.throttle.attempt(address):
            return self._identify(secret.strip()[:MAX_SECRET_CHARS])

    def _identify(self, secret: str) -> Visitor:
        if secret.startswith(KEY_PREFIX):
            with suppress(NotFound):
                return self.verify_key(hashlib.sha256(secret.encode()).hexdigest())
        elif self.password and self._is_password(secret):
            return Visitor("operator", Role.OPERATOR)
        raise Unauthenticated(Reason.WRONG_SECRET, "This is neither the password nor a valid API key.")

    def _is_password(self, secret: str) -> bool:
        expected = self.password.get_secret_value() if self.password else ""
        return bool(expected) and hmac.compare_digest(secret.encode(), expected.encode())

    def refresh(self, visitor: Visitor) -> Visitor:
        """The visitor as the registry knows them, at most 2 seconds old. Raises Unauthenticated once the key is revoked or expired."""
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
