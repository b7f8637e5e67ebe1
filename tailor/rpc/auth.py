"""Who calls, and whether they may: one check for every method of every service."""

import contextvars
import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from google.protobuf.descriptor import MethodDescriptor

from tailor.api.common.v1 import common_pb2
from tailor.errors import NotFound, PermissionDenied, Unauthenticated
from tailor.rpc.identity import Trust

KEY_PREFIX = "tlr_"
CACHE_SECONDS = 3.0
CACHE_ENTRIES = 10_000


@dataclass(frozen=True)
class Caller:
    """Who calls: a service, or the holder of an API key. No specialists means all of them."""

    kind: str
    name: str
    role: str = ""
    specialists: frozenset[str] = field(default_factory=frozenset)
    key_id: str = ""

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


class Authenticator:
    """Turns a bearer token into a caller. Keys are verified by the registry and remembered for seconds, so that a revoked key ends soon."""

    def __init__(
        self, service: str, trust: Trust, verify_key: VerifyKey, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._service = service
        self._trust = trust
        self._verify_key = verify_key
        self._now = now
        self._cache: dict[str, tuple[float, Caller | None]] = {}
        self._lock = threading.Lock()

    def authenticate(self, token: str) -> Caller:
        """The caller; Unauthenticated for a token that is neither a trusted service's nor a living key, Unavailable without registry."""
        if not token:
            raise Unauthenticated("NO_CREDENTIALS", "Send `authorization: Bearer KEY`.")
        if token.startswith(KEY_PREFIX):
            return self._by_key(token)
        return Caller(kind="service", name=self._trust.verify(token, self._service))

    def _by_key(self, secret: str) -> Caller:
        digest = hashlib.sha256(secret.encode()).hexdigest()
        with self._lock:
            expiry, caller = self._cache.get(digest, (0.0, None))
        if self._now() >= expiry:
            try:
                caller = self._verify_key(digest)
            except NotFound:
                caller = None
            with self._lock:
                if len(self._cache) >= CACHE_ENTRIES:
                    self._cache.clear()
                self._cache[digest] = (self._now() + CACHE_SECONDS, caller)
        if caller is None:
            raise Unauthenticated("UNKNOWN_KEY", "The API key is unknown, expired or revoked.")
        return caller


def check_access(method: MethodDescriptor, caller: Caller) -> None:
    """PermissionDenied unless the method's own `access` option admits the caller."""
    access = method.GetOptions().Extensions[common_pb2.access]
    if access.any_authenticated:
        return
    if caller.kind == "service" and caller.name in access.services:
        return
    if caller.kind == "key" and caller.role in {common_pb2.Role.Name(role) for role in access.roles}:
        return
    raise PermissionDenied(
        "ROLE_NOT_ADMITTED", f"{method.name} is not for this caller; its contract names the roles that may call it."
    )
