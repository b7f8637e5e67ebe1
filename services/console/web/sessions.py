"""Sessions in a signed cookie, who may sign in, and the limits on attempts."""

import hashlib
import hmac
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass, field

from itsdangerous import BadSignature, URLSafeTimedSerializer
from pydantic import SecretStr

from services.console.domain import Role, SignInAttempt, Visitor
from tailor.api.registry.v1 import people_pb2
from tailor.api.registry.v1.people_pb2_grpc import PeopleServiceStub
from tailor.codec import decode
from tailor.errors import NotFound, Reason, ResourceExhausted, Unauthenticated

COOKIE, ATTEMPT_COOKIE = "tailor_session", "tailor_sign_in"
ATTEMPT_SECONDS = 600
LIFETIME_SECONDS = 8 * 3600
# With the checks of streams each second, the sessions of a revoked key or a removed person end within three.
SESSION_CACHE_SECONDS = 2.0
MAX_OPEN_SESSIONS = 10_000
KEY_PREFIX, PERSON_PREFIX = "tlr_", "tlp_"
PREFIX_CHARS = len(KEY_PREFIX)
OPERATOR = Visitor("operator", Role.OPERATOR)
MAX_SECRET_CHARS = 512
ATTEMPTS_PER_MINUTE = 6
TOTAL_ATTEMPTS_PER_MINUTE = 60


@dataclass(frozen=True)
class BrowserSession:
    """A browser's CSRF token, and the secret of its session once its visitor has signed in. The registry knows the session by the secret's
    hash; those of the operator by password are in `OpenSessions`."""

    csrf: str
    secret: str = ""
    by_password: bool = False

    @classmethod
    def new(cls, secret: str = "", *, by_password: bool = False) -> "BrowserSession":
        """A session with a new CSRF token."""
        return cls(secrets.token_urlsafe(24), secret, by_password)


class OpenSessions:
    """The sessions of the operator by password that nobody has signed out of. In memory, so that the operator can sign in without the
    registry: a restart of the console ends all. Thread-safe."""

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
    """Writes and reads the cookie. It is signed, not encrypted: it contains nothing but the browser's own secrets."""

    def __init__(self, secret: SecretStr) -> None:
        self._serializer = URLSafeTimedSerializer(
            secret.get_secret_value(),
            salt="tailor.console.session.2",
            signer_kwargs={"digest_method": hashlib.sha256, "key_derivation": "hmac"},
        )

    def write(self, session: BrowserSession) -> str:
        return str(self._serializer.dumps([session.csrf, session.secret, session.by_password]))

    def read(self, cookie: str) -> BrowserSession | None:
        """The session; None if the cookie is forged, damaged, expired, or of an earlier release."""
        try:
            csrf, secret, by_password = self._serializer.loads(cookie, max_age=LIFETIME_SECONDS)
        except BadSignature:
            return None
        return BrowserSession(csrf, secret, by_password)


class AttemptCodec:
    """Writes and reads the cookie of a browser whose user is at the provider. It is signed, and contains the browser's own secrets only."""

    def __init__(self, secret: SecretStr) -> None:
        self._serializer = URLSafeTimedSerializer(
            secret.get_secret_value(),
            salt="tailor.console.sign-in",
            signer_kwargs={"digest_method": hashlib.sha256, "key_derivation": "hmac"},
        )

    def write(self, attempt: SignInAttempt) -> str:
        return str(self._serializer.dumps(astuple(attempt)))

    def read(self, cookie: str) -> SignInAttempt | None:
        """The attempt; None if the cookie is missing, forged or older than ten minutes."""
        try:
            return SignInAttempt(*self._serializer.loads(cookie, max_age=ATTEMPT_SECONDS))
        except BadSignature:
            return None


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
class SessionAuthenticator:
    """Checks passwords, keys and secrets at sign-in, and sessions while they last."""

    password: SecretStr | None
    people: PeopleServiceStub
    open: OpenSessions = field(default_factory=OpenSessions)
    throttle: Throttle = field(default_factory=Throttle)
    now: Callable[[], float] = time.monotonic
    # Visitors by the hash of their session, with the time at which the registry is asked again.
    _known: dict[str, tuple[float, Visitor]] = field(default_factory=dict)

    def admit(self, secret: str, address: str) -> tuple[Visitor, BrowserSession]:
        """A new session. Raises Unauthenticated for a wrong secret, ResourceExhausted after too many, Unavailable without the registry."""
        with self.throttle.attempt(address):
            return self._identify(secret.strip()[:MAX_SECRET_CHARS])

    def _identify(self, secret: str) -> tuple[Visitor, BrowserSession]:
        if secret[:PREFIX_CHARS] in (KEY_PREFIX, PERSON_PREFIX):
            digest = sha256(secret)
            request = people_pb2.BeginSessionRequest(secret_sha256=digest)
            if secret.startswith(KEY_PREFIX):
                request = people_pb2.BeginSessionRequest(key_sha256=digest)
            with suppress(NotFound):
                visitor, session = begin_session(self.people, request)
                return visitor, BrowserSession.new(session)
        elif self.password and self._is_password(secret):
            return OPERATOR, BrowserSession.new(self.open.begin(), by_password=True)
        raise Unauthenticated(Reason.WRONG_SECRET, "This is not the password, a valid API key or a person's secret.")

    def _is_password(self, secret: str) -> bool:
        expected = self.password.get_secret_value() if self.password else ""
        return bool(expected) and hmac.compare_digest(secret.encode(), expected.encode())

    def refresh(self, session: BrowserSession) -> Visitor:
        """The session's visitor as the registry knows them, at most 2 seconds old. Raises Unauthenticated once the session has ended."""
        if session.by_password:
            if not self.open.is_open(session.secret):
                raise Unauthenticated(Reason.NOT_SIGNED_IN, "You have signed out.")
            return OPERATOR
        if not session.secret:
            raise Unauthenticated(Reason.NOT_SIGNED_IN, "Sign in first.")
        digest = sha256(session.secret)
        expiry, known = self._known.get(digest, (0.0, OPERATOR))
        return known if self.now() < expiry else self._ask(digest)

    def _ask(self, digest: str) -> Visitor:
        try:
            session = self.people.GetSession(people_pb2.GetSessionRequest(session_sha256=digest)).session
        except NotFound as error:
            self._known.pop(digest, None)
            raise Unauthenticated(Reason.UNKNOWN_SESSION, error.message) from None
        visitor = _to_visitor(session)
        if len(self._known) > 1_000:
            self._known.clear()
        self._known[digest] = (self.now() + SESSION_CACHE_SECONDS, visitor)
        return visitor

    def dismiss(self, session: BrowserSession) -> None:
        """End a session. Idempotent. Raises Unavailable without the registry, which then still knows the session."""
        if session.by_password:
            self.open.end(session.secret)
        elif session.secret:
            digest = sha256(session.secret)
            self.people.EndSession(people_pb2.EndSessionRequest(session_sha256=digest))
            self._known.pop(digest, None)


def begin_session(people: PeopleServiceStub, request: people_pb2.BeginSessionRequest) -> tuple[Visitor, str]:
    """Begin a session with a credential; returns its visitor and its secret. Raises NotFound for an unknown credential."""
    response = people.BeginSession(request)
    return _to_visitor(response.session), response.session_secret


def _to_visitor(session: people_pb2.Session) -> Visitor:
    return decode(Visitor, session, key_id=session.holder_id)


def sha256(secret: str) -> str:
    """The hash that the registry knows a secret by."""
    return hashlib.sha256(secret.encode()).hexdigest()
