"""Who calls, and whether they may: one check for every method of every service."""

import contextvars
import hashlib
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from google.protobuf.descriptor import MethodDescriptor

from tailor.api.common.v1 import common_pb2
from tailor.errors import NotFound, PermissionDenied, Reason, TailorError, Unauthenticated
from tailor.rpc.identity import Trust
from tailor.rpc.methods import full_name
from tailor.rpc.rates import Rates

KEY_PREFIX = "tlr_"
CACHE_SECONDS = 3.0
CACHE_ENTRIES = 10_000
# While the registry does not answer, a key that it knew is believed for so long, and it is asked again after so long.
BELIEVED_SECONDS = 30.0
ASK_AGAIN_SECONDS = 1.0


@dataclass(frozen=True)
class Caller:
    """Who calls: a service, or the holder of an API key. No specialists means all of them, no methods all that the role may call, and no
    calls a minute no limit."""

    kind: str
    name: str
    role: str = ""
    specialists: frozenset[str] = field(default_factory=frozenset)
    key_id: str = ""
    methods: frozenset[str] = field(default_factory=frozenset)
    calls_per_minute: int = 0

    def may_use(self, specialist: str) -> bool:
        """True if the caller was given this specialist."""
        return not self.specialists or specialist in self.specialists


_caller: contextvars.ContextVar[Caller] = contextvars.ContextVar("caller")

VerifyKey = Callable[[str], Caller]


def current_caller() -> Caller:
    """The caller of the call being served."""
    return _caller.get()


def set_caller(caller: Caller) -> None:
    """State the caller of the call being served; for the interceptor and tests."""
    _caller.set(caller)


@dataclass(frozen=True)
class _Known:
    """What the registry said of a key, when, and until when that is not asked again."""

    caller: Caller | None
    said_at: float
    expiry: float


class Authenticator:
    """Turns a bearer token into a caller, and says whether that caller may call a method. Keys are verified by the registry and remembered
    for seconds, so that a revoked key ends soon."""

    def __init__(
        self, service: str, trust: Trust, verify_key: VerifyKey, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._service = service
        self._trust = trust
        self._verify_key = verify_key
        self._now = now
        self._rates = Rates(now)
        self._known: dict[str, _Known] = {}
        self._lock = threading.Lock()

    def authenticate(self, token: str) -> Caller:
        """The caller; Unauthenticated for a token that is neither a trusted service's nor a living key, Unavailable where the registry does
        not answer and has not known the key for BELIEVED_SECONDS."""
        if not token:
            raise Unauthenticated(Reason.NO_CREDENTIALS, "Send `authorization: Bearer KEY`.")
        if token.startswith(KEY_PREFIX):
            return self._by_key(token, BELIEVED_SECONDS)
        return Caller(kind="service", name=self._trust.verify(token, self._service))

    def admit(self, caller: Caller, method: MethodDescriptor) -> None:
        """PermissionDenied unless the caller may call the method, ResourceExhausted where a key called too often in this process."""
        check_access(method, caller)
        self._rates.take(caller.key_id, caller.calls_per_minute)

    def still_admits(self, caller: Caller, token: str) -> None:
        """Unauthenticated where the key of a running call was revoked or expired, as far as the registry answers. A service's token counts
        when the call begins."""
        if caller.kind == "key":
            self._by_key(token, math.inf)

    def _by_key(self, secret: str, patience: float) -> Caller:
        """The key's holder; what the registry said is believed for `patience` seconds while it does not answer."""
        digest = hashlib.sha256(secret.encode()).hexdigest()
        with self._lock:
            known = self._known.get(digest)
        if known is None or self._now() >= min(known.expiry, known.said_at + patience):
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
            caller = self._verify_key(digest)
        except NotFound:
            return _Known(None, self._now(), self._now() + CACHE_SECONDS)
        except TailorError as error:
            if known is None or self._now() >= known.said_at + patience or not error.retryable:
                raise
            return _Known(known.caller, known.said_at, self._now() + ASK_AGAIN_SECONDS)
        return _Known(caller, self._now(), self._now() + CACHE_SECONDS)


def check_access(method: MethodDescriptor, caller: Caller) -> None:
    """PermissionDenied unless the method's own `access` option admits the caller, and a key was given the method."""
    if caller.methods and full_name(method) not in caller.methods:
        raise PermissionDenied(Reason.METHOD_NOT_GIVEN, f"This key was not given {method.name}.")
    access = method.GetOptions().Extensions[common_pb2.access]
    if access.any_authenticated:
        return
    if caller.kind == "service" and caller.name in access.services:
        return
    if caller.kind == "key" and caller.role in {common_pb2.Role.Name(role) for role in access.roles}:
        return
    raise PermissionDenied(
        Reason.ROLE_NOT_ADMITTED,
        f"{method.name} is not for this caller; its contract names the roles that may call it.",
    )
