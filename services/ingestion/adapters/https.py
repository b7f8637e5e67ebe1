"""Files from allowed https hosts.

A name is resolved once, all its addresses are checked, and the connection goes to one of those addresses. So a name whose addresses change
after the check (DNS rebinding) leads nowhere else.
"""

import http.client
import logging
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Self
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from urllib3 import HTTPResponse
from urllib3.connection import HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ProtocolError

from services.ingestion.adapters.addresses import is_public
from services.ingestion.domain import File, FileReference, Rejected, RejectionReason, base_name
from services.ingestion.ports import Fetcher
from services.ingestion.settings import HTTPS_PORT, Settings, decode_hosts
from tailor.errors import Reason, Unavailable

Resolve = Callable[[str, int], Sequence[str]]
# Connects to an address, a port and the host that the certificate must name, within seconds.
Connect = Callable[[str, int, str, ssl.SSLContext, float], HTTPSConnection]

CONNECT_SECONDS = 5.0
MAX_REDIRECTS = 3
MAX_ADDRESSES = 4
CHUNK_BYTES = 64 * 1024
REDIRECTS = (301, 302, 303, 307, 308)
# Statuses below 500 after which a later attempt may succeed.
TEMPORARY = (408, 425, 429)
PLAIN_URI = re.compile(r"https://[!-\[\]-~]+")
HEADERS = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "tailor-ingestion", "Connection": "close"}

# Its warnings quote the URL, which may contain a signature. A filter, since `logging.config` resets `disabled` on every logger.
logging.getLogger("urllib3.connection").addFilter(lambda record: False)


@dataclass(frozen=True)
class RequestTarget:
    """Where one request goes. `target` is path and query."""

    host: str
    port: int
    target: str

    @property
    def host_header(self) -> str:
        return self.host if self.port == HTTPS_PORT else f"{self.host}:{self.port}"


def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of a name, without repetition. Raises OSError if it has none."""
    entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return list(dict.fromkeys(str(entry[4][0]) for entry in entries))


def connect(address: str, port: int, host: str, context: ssl.SSLContext, seconds: float) -> HTTPSConnection:
    """Connect to an address; TLS verifies that its certificate names `host`. The connection and the handshake have `seconds` each.

    Raises NewConnectionError or ConnectTimeoutError if the address does not answer, and OSError if the handshake fails.
    """
    connection = HTTPSConnection(address, port, timeout=seconds, server_hostname=host, ssl_context=context)
    try:
        connection.connect()
    except BaseException:
        connection.close()
        raise
    return connection


def make_context(ca_file: Path | None) -> ssl.SSLContext:
    """A TLS context that trusts the system's certificate authorities and those in the file (PEM)."""
    context = ssl.create_default_context()
    # Debian 12's Python 3.11.2 sets this by default; a body that is cut short would pass as complete.
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    return context


class HttpsFetcher(Fetcher):
    """Calls allowed hosts, given as name and port, without cookies, credentials or a proxy. Thread-safe.

    `seconds` limits the whole fetch of one file, redirects included.
    """

    def __init__(
        self,
        hosts: Collection[tuple[str, int]],
        context: ssl.SSLContext,
        seconds: float,
        *,
        resolve: Resolve = resolve,
        connect: Connect = connect,
    ) -> None:
        self._hosts = frozenset(hosts)
        self._context = context
        self._seconds = seconds
        self._resolve = resolve
        self._connect = connect

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        return cls(decode_hosts(settings.fetch_hosts), make_context(settings.fetch_ca_file), settings.fetch_seconds)

    def fetch(self, reference: FileReference, max_bytes: int) -> File:
        uri, until = reference.uri, time.monotonic() + self._seconds
        for _ in range(MAX_REDIRECTS + 1):
            with self._get(self._target(uri), until) as response:
                if response.status not in REDIRECTS:
                    return _file(reference, response, max_bytes)
                uri = _redirect(uri, response)
        raise _unreachable(f"The host redirects more than {MAX_REDIRECTS} times. Send the final address.")

    def _target(self, uri: str) -> RequestTarget:
        """Check an address from the publisher or from a redirect. Raises Rejected (NOT_ALLOWED)."""
        if not PLAIN_URI.fullmatch(uri):
            raise _not_allowed("The address must begin with https:// and contain only printable ASCII characters.")
        try:
            parts = urlsplit(uri)
            port = HTTPS_PORT if parts.port is None else parts.port
        except ValueError:
            raise _not_allowed("The address is not a valid URL.") from None
        if "@" in parts.netloc:
            raise _not_allowed("The address must not contain a user name or password.")
        host = (parts.hostname or "").lower()
        if (host, port) not in self._hosts:
            raise _not_allowed("The host and port are not allowed. Ask an operator to add them to TAILOR_FETCH_HOSTS.")
        return RequestTarget(host, port, _path_and_query(parts))

    @contextmanager
    def _get(self, target: RequestTarget, until: float) -> Iterator[HTTPResponse]:
        """The response to one request. Any failure of the host within the block becomes Unavailable, slowness included."""
        try:
            with self._open(target, until) as connection, _cut_off(connection, until):
                headers = HEADERS | {"Host": target.host_header}
                connection.request("GET", target.target, headers=headers, preload_content=False, decode_content=False)
                yield connection.getresponse()
        except ssl.SSLCertVerificationError:
            raise _unreachable("The host's certificate is not valid for its name. Ask its administrator.") from None
        except ProtocolError:
            # It answered, so that the circuit breaker must not count it as away.
            raise Unavailable(Reason.HOST_FAILED, "The host broke off. Retry.") from None
        except (OSError, http.client.HTTPException, HTTPError, ValueError) as error:
            raise Unavailable(Reason.HOST_UNAVAILABLE, f"The host did not answer ({type(error).__name__}).") from None

    @contextmanager
    def _open(self, target: RequestTarget, until: float) -> Iterator[HTTPSConnection]:
        """A connection to the first of the host's addresses that answers."""
        connection = None
        for address in self._addresses(target):
            try:
                seconds = min(CONNECT_SECONDS, _left(until))
                connection = self._connect(address, target.port, target.host, self._context, seconds)
                break
            except (NewConnectionError, ConnectTimeoutError):
                continue
        if connection is None:
            raise TimeoutError
        try:
            yield connection
        finally:
            connection.close()

    def _addresses(self, target: RequestTarget) -> Sequence[str]:
        addresses = list(self._resolve(target.host, target.port))[:MAX_ADDRESSES]
        if not addresses:
            raise Unavailable(Reason.UNKNOWN_HOST, "The host's name currently has no address.")
        if not all(map(is_public, addresses)):
            raise _not_allowed("The host's name leads to an internal address. Files are fetched only from public ones.")
        return addresses


@contextmanager
def _cut_off(connection: HTTPSConnection, until: float) -> Iterator[None]:
    """Break the connection when its time is up, and raise TimeoutError. A socket's own timeout would never end a host that drips bytes."""
    sock, is_over = connection.sock, threading.Event()
    connection.timeout = _left(until)
    if isinstance(sock, ssl.SSLSocket):
        # A body that ends without TLS's closing message may be cut short.
        sock.suppress_ragged_eofs = False  # type: ignore[attr-defined]

    def cut() -> None:
        is_over.set()
        with suppress(OSError):
            # The plain socket's method: SSLSocket.shutdown would let the reading thread go on without TLS.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)

    timer = threading.Timer(_left(until), cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if is_over.is_set():
            raise TimeoutError


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _path_and_query(parts: SplitResult) -> str:
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _redirect(uri: str, response: HTTPResponse) -> str:
    location = response.headers.get("Location")
    if not location:
        raise _unreachable("The host redirects without a location.")
    return urljoin(uri, location)


def _file(reference: FileReference, response: HTTPResponse, max_bytes: int) -> File:
    if response.status >= 500 or response.status in TEMPORARY:
        raise Unavailable(Reason.HOST_FAILED, f"The host answered {response.status}.")
    if response.status != 200:
        raise _unreachable(f"The host answered {response.status}. The address must be readable without authentication.")
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise _unreachable("The host answered with a content encoding that was not requested.")
    data = _body(response, max_bytes)
    name = reference.name or _attachment_name(response.headers.get("Content-Disposition")) or _last_part(reference.uri)
    return File(data, base_name(name), reference.content_type or response.headers.get("Content-Type", ""))


def _body(response: HTTPResponse, max_bytes: int) -> bytes:
    data = bytearray()
    if (response.length_remaining or 0) <= max_bytes:
        for chunk in response.stream(CHUNK_BYTES, decode_content=False):
            data += chunk
            if len(data) > max_bytes:
                break
        else:
            return bytes(data)
    raise Rejected(RejectionReason.TOO_LARGE, f"The file is larger than {max_bytes // 2**20} MiB. Publish it in parts.")


def _attachment_name(disposition: str | None) -> str:
    message = Message()
    message["Content-Disposition"] = disposition or ""
    return message.get_filename() or ""


def _last_part(uri: str) -> str:
    return unquote(urlsplit(uri).path.rpartition("/")[2])


def _not_allowed(hint: str) -> Rejected:
    return Rejected(RejectionReason.NOT_ALLOWED, hint)


def _unreachable(hint: str) -> Rejected:
    return Rejected(RejectionReason.UNREACHABLE, hint)
