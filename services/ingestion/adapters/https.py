"""Files from https hosts that are allowed: a name is resolved once, its addresses are checked, and that very address is connected to."""

import http.client
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
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from services.ingestion.adapters.addresses import is_public
from services.ingestion.domain import File, Reference, Rejected, RejectionReason, plain_name
from tailor.errors import Reason, Unavailable

Resolve = Callable[[str, int], Sequence[str]]
Dial = Callable[[str, int, float], socket.socket]

PORT = 443
CONNECT_SECONDS = 5.0
MAX_REDIRECTS = 3
MAX_ADDRESSES = 4
CHUNK_BYTES = 64 * 1024
REDIRECTS = (301, 302, 303, 307, 308)
# Answers of a host that may say something else in a moment.
FOR_NOW = (408, 425, 429)
PLAIN_URI = re.compile(r"https://[!-\[\]-~]+")
HEADERS = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "tailor-ingestion", "Connection": "close"}


@dataclass(frozen=True)
class Place:
    """Where one request goes. `target` is path and query."""

    host: str
    port: int
    target: str


def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of a name, each once; OSError where there are none."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def dial(address: str, port: int, seconds: float) -> socket.socket:
    """A connection to an address; OSError where there is none."""
    return socket.create_connection((address, port), seconds)


def trust(ca_file: Path | None) -> ssl.SSLContext:
    """The system's certificate authorities, and those of a file (PEM) beside them."""
    context = ssl.create_default_context()
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    return context


class HttpsFetcher:
    """Asks allowed hosts, by name and port, without cookies, credentials or a proxy. `seconds` holds for one file, redirects included.
    Thread-safe."""

    def __init__(
        self,
        hosts: Collection[tuple[str, int]],
        context: ssl.SSLContext,
        seconds: float,
        *,
        resolve: Resolve = resolve,
        dial: Dial = dial,
    ) -> None:
        self._hosts = frozenset(hosts)
        self._context = context
        self._seconds = seconds
        self._resolve = resolve
        self._dial = dial

    def fetch(self, reference: Reference, max_bytes: int) -> File:
        """The file; Rejected or Unavailable as the domain's Fetcher says."""
        uri, until = reference.uri, time.monotonic() + self._seconds
        for _ in range(MAX_REDIRECTS + 1):
            with self._asked(self._place(uri), until) as response:
                if response.status not in REDIRECTS:
                    return _file(reference, response, max_bytes)
                uri = _next(uri, response)
        raise _unreachable(f"The host redirects more than {MAX_REDIRECTS} times; give the last address.")

    def _place(self, uri: str) -> Place:
        """Where the address leads, if it may: nothing about it is taken on trust, for a redirect comes from outside."""
        if not PLAIN_URI.fullmatch(uri):
            raise _not_allowed("An address of the web begins with https:// and holds printable ASCII alone.")
        try:
            parts = urlsplit(uri)
            port = PORT if parts.port is None else parts.port
        except ValueError:
            raise _not_allowed("This is no address of the web.") from None
        if "@" in parts.netloc:
            raise _not_allowed("An address with a user name or password is never fetched.")
        host = (parts.hostname or "").lower()
        if (host, port) not in self._hosts:
            raise _not_allowed(
                "This host and port are not among those that are allowed (TAILOR_FETCH_HOSTS); ask an operator."
            )
        return Place(host, port, _target(parts))

    def _addresses(self, place: Place) -> Sequence[str]:
        addresses = list(self._resolve(place.host, place.port))[:MAX_ADDRESSES]
        if not addresses:
            raise Unavailable(Reason.UNKNOWN_HOST, "The host's name has no address for now.")
        if not all(map(is_public, addresses)):
            raise _not_allowed("The host's name leads to an address inside the network, which is never fetched from.")
        return addresses

    @contextmanager
    def _asked(self, place: Place, until: float) -> Iterator[http.client.HTTPResponse]:
        """The answer to one request. Everything that the host does wrong within the block becomes Unavailable, slowness included."""
        connection: _Pinned | None = None
        try:
            connection = _Pinned(place, self._addresses(place), self._context, self._dial, until)
            with connection.cut_off():
                connection.request("GET", place.target, headers=HEADERS)
                yield connection.getresponse()
        except ssl.SSLCertVerificationError:
            raise _unreachable("The host's certificate does not verify for its name; ask who runs it.") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Unavailable(Reason.HOST_UNAVAILABLE, f"The host did not answer ({type(error).__name__}).") from None
        finally:
            if connection is not None:
                connection.close()


class _Pinned(http.client.HTTPSConnection):
    """A connection to addresses that were checked, whatever the name means by now; TLS verifies the name."""

    def __init__(
        self, place: Place, addresses: Sequence[str], context: ssl.SSLContext, dial: Dial, until: float
    ) -> None:
        super().__init__(place.host, place.port, timeout=_left(until), context=context)
        self._addresses = addresses
        self._tls = context
        self._dial = dial
        self._until = until

    def connect(self) -> None:
        """Connect to the first address that answers, and shake hands."""
        plain = self._first()
        plain.settimeout(_left(self._until))
        self.sock = self._tls.wrap_socket(
            plain, server_hostname=self.host, do_handshake_on_connect=False, suppress_ragged_eofs=False
        )
        self.sock.do_handshake()

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        """Break the connection when its time is up, for a host may drip a byte now and then for ever; TimeoutError then."""
        is_over = threading.Event()

        def cut() -> None:
            is_over.set()
            with suppress(OSError, AttributeError):
                # Of the plain socket: an SSLSocket's own would have the thread that reads go on without TLS.
                socket.socket.shutdown(self.sock, socket.SHUT_RDWR)

        timer = threading.Timer(_left(self._until), cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            if is_over.is_set():
                raise TimeoutError

    def _first(self) -> socket.socket:
        failure: OSError = OSError()
        for address in self._addresses:
            try:
                return self._dial(address, self.port, min(CONNECT_SECONDS, _left(self._until)))
            except OSError as error:
                failure = error
        raise failure


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _target(parts: SplitResult) -> str:
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _next(uri: str, response: http.client.HTTPResponse) -> str:
    location = response.getheader("Location") or ""
    if not location:
        raise _unreachable("The host redirects to nowhere.")
    return urljoin(uri, location)


def _file(reference: Reference, response: http.client.HTTPResponse, max_bytes: int) -> File:
    if response.status >= 500 or response.status in FOR_NOW:
        raise Unavailable(Reason.HOST_FAILED, f"The host answered {response.status}.")
    if response.status != 200:
        raise _unreachable(f"The host answered {response.status}; the address must give the file to who has no login.")
    if (response.getheader("Content-Encoding") or "identity").lower() != "identity":
        raise _unreachable("The host answered in a content encoding that was not asked for.")
    data = _body(response, max_bytes)
    name = reference.name or _named(response.getheader("Content-Disposition")) or _last_part(reference.uri)
    return File(data, plain_name(name), reference.content_type or response.getheader("Content-Type") or "")


def _body(response: http.client.HTTPResponse, max_bytes: int) -> bytes:
    announced = response.length
    data = bytearray()
    while len(data) <= max_bytes and (announced or 0) <= max_bytes:
        chunk = response.read(CHUNK_BYTES)
        data += chunk
        if not chunk:
            if announced is not None and len(data) != announced:
                raise Unavailable(Reason.HOST_FAILED, "The host broke off.")
            return bytes(data)
    raise Rejected(RejectionReason.TOO_LARGE, f"The file has over {max_bytes // 2**20} MiB; publish it in parts.")


def _named(disposition: str | None) -> str:
    message = Message()
    message["Content-Disposition"] = disposition or ""
    return message.get_filename() or ""


def _last_part(uri: str) -> str:
    return unquote(urlsplit(uri).path.rpartition("/")[2])


def _not_allowed(hint: str) -> Rejected:
    return Rejected(RejectionReason.NOT_ALLOWED, hint)


def _unreachable(hint: str) -> Rejected:
    return Rejected(RejectionReason.UNREACHABLE, hint)
