"""Authentication and authorisation, with the rate limits of keys: one check for every method of every service."""

import contextvars
import hashlib
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import jwt
from google.protobuf.descriptor import MethodDescriptor

from tailor.api.common.v1 import common_pb2
from tailor.errors import (
    NotFound,
    PermissionDenied,
    Reason,
    ResourceExhausted,
    TailorError,
    Unauthenticated,
    Unavailable,
)
from tailor.rpc.identity import Trust
from tailor.rpc.methods import full_name

MAX_BUCKETS = 10_000


class RateLimiter:
    """Token buckets that hold the calls of one minute and refill evenly. Thread-safe."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, key_id: str, calls_per_minute: int) -> None:
        """Count a call. Raises ResourceExhausted with the time until the next call is admitted. A limit of 0 means unlimited."""
        if not calls_per_minute:
            return
        per_second = calls_per_minute / 60
        with self._lock:
            now = self._now()
            if key_id not in self._buckets and len(self._buckets) >= MAX_BUCKETS:
                self._buckets.clear()
            left, since = self._buckets.get(key_id, (float(calls_per_minute), now))
            left = min(float(calls_per_minute), left + (now - since) * per_second)
            admitted = left >= 1
            self._buckets[key_id] = (left - 1 if admitted else left, now)
        if not admitted:
            raise ResourceExhausted(
                Reason.RATE_EXCEEDED,
                f"This key may call {calls_per_minute} times per minute.",
                retry_after_seconds=(1 - left) / per_second,
            )


KEY_PREFIX = "tlr_"
CACHE_SECONDS = 3.0
CACHE_ENTRIES = 10_000
# While the registry does not answer, a verified key stays valid for TRUSTED_SECONDS, and the registry is asked again every second.
TRUSTED_SECONDS = 30.0
ASK_AGAIN_SECONDS = 1.0
# Unknown keys that the registry is asked about at once, so that made-up keys do not take every thread while it answers slowly.
MAX_QUESTIONS = 16


@dataclass(frozen=True)
class Caller:
    """A service, or the holder of an API key (`kind` is `service` or `key`).

    Empty `specialists` admit all specialists, empty `methods` all that the role may call. 0 `calls_per_minute` means unlimited.
    """

    kind: str
    name: str
    role: str = ""
    specialists: frozenset[str] = field(default_factory=frozenset)
    key_id: str = ""
    methods: frozenset[str] = field(default_factory=frozenset)
    calls_per_minute: int = 0

    def may_use(self, specialist: str) -> bool:
        """True if the caller's key admits this specialist."""
        return not self.specialists or specialist in self.specialists


_caller: contextvars.ContextVar[Caller] = contextvars.ContextVar("caller")
_check: contextvars.ContextVar[Callable[[], None]] = contextvars.ContextVar("check", default=lambda: None)

VerifyKey = Callable[[str], Caller]


def current_caller() -> Caller:
    """The caller of the call being served."""
    return _caller.get()


def check_caller() -> None:
    """Raise Unauthenticated if the caller's key was revoked since the call began.

    The server asks with each message of a stream. A handler calls this while it has nothing to send.
    """
    _check.get()()


def set_caller(caller: Caller, check: Callable[[], None] = lambda: None) -> None:
    """Set the caller of the call being served, and what `check_caller` asks. For the interceptor and tests."""
    _caller.set(caller)
    _check.set(check)


@dataclass(frozen=True)
class _Known:
    """The registry's answer about a key (None for an unknown one), its time, and when to ask again (seconds)."""

    caller: Caller | None
    verified_at: float
    ask_again_at: float


class Authenticator:
    """Turns bearer tokens into callers and decides what they may call. Thread-safe.

    Keys are verified by `verify_key`, which gets the SHA-256 of a key in hexadecimal, and remembered for CACHE_SECONDS.
    """

    def __init__(
        self, service: str, trust: Trust, verify_key: VerifyKey, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._service = service
        self._trust = trust
        self._verify_key = verify_key
        self._now = now
        self._rates = RateLimiter(now)
        self._known: dict[str, _Known] = {}
        self._questions: dict[str, Future[Caller]] = {}
        self._lock = threading.Lock()

    def authenticate(self, token: str) -> Caller:
        """Identify the caller by an API key or a service's token.

        Raises Unauthenticated, or Unavailable if the registry does not answer and did not verify the key in the last TRUSTED_SECONDS.
        """
        if not token:
            raise Unauthenticated(Reason.NO_CREDENTIALS, "Send `authorization: Bearer KEY`.")
        if token.startswith(KEY_PREFIX):
            return self._by_key(token, TRUSTED_SECONDS)
        try:
            return Caller(kind="service", name=self._trust.verify(token, self._service))
        except Unauthenticated:
            if _is_signed_token(token):
                raise
        raise Unauthenticated(
            Reason.INVALID_KEY,
            f"This is not an API key: keys begin with `{KEY_PREFIX}`. Check that it was copied completely.",
        )

    def admit(self, caller: Caller, method: MethodDescriptor) -> None:
        """Count a call of a method. Raises PermissionDenied, or ResourceExhausted if the key exceeds its rate in this process."""
        check_access(method, caller)
        self._rates.take(caller.key_id, caller.calls_per_minute)

    def still_admits(self, caller: Caller, token: str) -> None:
        """Raise Unauthenticated if the key of a running call was revoked or has expired.

        The call continues while the registry does not answer. A service's token is checked only when its call begins.
        """
        if caller.kind == "key":
            self._by_key(token, math.inf)

    def _by_key(self, secret: str, patience: float) -> Caller:
        """The key's holder. The last answer stays valid for `patience` seconds while the registry does not answer."""
        digest = hashlib.sha256(secret.encode()).hexdigest()
        with self._lock:
            known = self._known.get(digest)
        if known is None or self._now() >= min(known.ask_again_at, known.verified_at + patience):
            known = self._ask(digest, known, patience)
            with self._lock:
                if len(self._known) >= CACHE_ENTRIES:
                    self._known.clear()
                self._known[digest] = known
        if known.caller is None:
            raise Unauthenticated(Reason.UNKNOWN_KEY, "The API key is unknown, expired or revoked.")
        return known.caller

    def _ask(self, digest: str, known: _Known | None, patience: float) -> _Known:
        try:
            caller = self._verify(digest, is_known=known is not None)
        except NotFound:
            return _Known(None, self._now(), self._now() + CACHE_SECONDS)
        except TailorError as error:
            if known is None or self._now() >= known.verified_at + patience or not error.retryable:
                raise
            return _Known(known.caller, known.verified_at, self._now() + ASK_AGAIN_SECONDS)
        return _Known(caller, self._now(), self._now() + CACHE_SECONDS)

    def _verify(self, digest: str, *, is_known: bool) -> Caller:
        """Ask the registry, or wait for its answer to the same question. Raises Unavailable (REGISTRY_BUSY) at MAX_QUESTIONS."""
        with self._lock:
            question = self._questions.get(digest)
            is_asked = question is not None
            if question is None:
                if not is_known and len(self._questions) >= MAX_QUESTIONS:
                    raise Unavailable(
                        Reason.REGISTRY_BUSY, "Too many unknown keys are being looked up. Retry.", retry_after_seconds=1
                    )
                question = self._questions[digest] = Future()
        try:
            return question.result() if is_asked else self._settle(question, digest)
        finally:
            # An exception that refers to this frame, which refers to the exception, would keep the call until garbage is collected.
            del question

    def _settle(self, question: "Future[Caller]", digest: str) -> Caller:
        """Ask the registry, and answer those that wait for it."""
        try:
            caller = self._verify_key(digest)
            question.set_result(caller)
        except TailorError as error:
            question.set_exception(error)
            raise
        finally:
            with self._lock:
                del self._questions[digest]
            if not question.done():
                question.set_exception(Unavailable(Reason.UNAVAILABLE, "The registry could not be asked. Retry."))
            del question
        return caller


def _is_signed_token(token: str) -> bool:
    """True if the token has the form of a JWT; its signature is not checked."""
    try:
        jwt.get_unverified_header(token)
    except jwt.PyJWTError:
        return False
    return True


def check_access(method: MethodDescriptor, caller: Caller) -> None:
    """Raise PermissionDenied unless the method's `access` option and the caller's key admit the call."""
    access = method.GetOptions().Extensions[common_pb2.access]
    if caller.methods and not caller.methods & _granting(method, access):
        raise PermissionDenied(
            Reason.METHOD_NOT_GIVEN, f"This key is limited to other methods; it may not call {method.name}."
        )
    if access.any_authenticated:
        return
    if caller.kind == "service" and caller.name in access.services:
        return
    if caller.kind == "key" and caller.role in {common_pb2.Role.Name(role) for role in access.roles}:
        return
    raise PermissionDenied(
        Reason.ROLE_NOT_ADMITTED,
        f"This caller may not call {method.name}; the comment on the method in `proto/` lists the roles that may.",
    )


def _granting(method: MethodDescriptor, access: common_pb2.Access) -> set[str]:
    """Full names of the methods of which a limited key needs one to call this method."""
    siblings = method.containing_service.methods_by_name
    return {full_name(method), *(full_name(siblings[name]) for name in access.with_methods)}
