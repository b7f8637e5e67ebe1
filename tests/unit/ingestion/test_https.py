"""Fetching over https, and every way into the network that is rejected. The server is real, the names are not."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from urllib3.connection import HTTPSConnection

from services.ingestion.adapters.addresses import is_public
from services.ingestion.adapters.https import HttpsFetcher, connect, make_context
from services.ingestion.domain import File, FileReference, Rejected, RejectionReason
from tailor.errors import Unavailable
from tests.unit.ingestion.tls import TlsServer, make_authority, serving

PUBLIC = "93.184.215.14"
HOST = "files.example.com"
OTHER = "other.example.com"
LIMIT = 100_000
ALLOWED = [(HOST, 443), (OTHER, 443)]
Send = Callable[[bytes], None]
INTERNAL = [
    "127.0.0.1",
    "127.9.9.9",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "169.254.169.254",
    "169.254.170.2",
    "100.64.0.1",
    "100.100.100.200",
    "192.0.0.192",
    "168.63.129.16",
    "198.18.0.1",
    "192.0.2.1",
    "203.0.113.7",
    "192.88.99.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:7f00:1",
    "::ffff:169.254.169.254",
    "::ffff:93.184.215.14",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::a00:1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "3fff::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "4000::1",
    "localhost",
    "2130706433",
    "0177.0.0.1",
    "",
]


def answer(head: str, body: bytes = b"", status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", *filter(None, head.split("\n"))]
    if "transfer-encoding" not in head.lower() and "content-length" not in head.lower():
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def drip(send: Send, piece: bytes) -> None:
    """Send for a minute."""
    for _ in range(1200):
        send(piece)
        time.sleep(0.05)


def respond(target: str, send: Send) -> None:
    chunk = b"2710\r\n" + b"x" * 10_000 + b"\r\n"
    if target.startswith("/hop/"):
        left = int(target.removeprefix("/hop/"))
        send(answer(f"Set-Cookie: a=b\nLocation: {f'/hop/{left - 1}' if left else '/memo.md'}", status="302 Found"))
    elif target.startswith("/to?"):
        send(answer(f"Location: {target.removeprefix('/to?')}", status="307 Temporary Redirect"))
    elif target == "/nowhere":
        send(answer("", status="302 Found"))
    elif target == "/named":
        send(
            answer(
                'Content-Disposition: attachment; filename="../a/Report 7.pdf"\nContent-Type: application/pdf', b"%PDF"
            )
        )
    elif target == "/announced":
        send(answer("Content-Length: 9999999999", b"x"))
    elif target == "/endless":
        send(answer("Transfer-Encoding: chunked") + chunk)
        for _ in range(10_000):
            send(chunk)
    elif target == "/broken":
        send(answer("Content-Length: 500", b"half"))
    elif target == "/without-length":
        send(b"HTTP/1.1 200 OK\r\n\r\n# Memo")
    elif target == "/torn":
        send(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        raise ConnectionError
    elif target == "/broken-chunk":
        send(answer("Transfer-Encoding: chunked") + b"ff\r\nhalf")
    elif target == "/slow-head":
        drip(send, b"H")
    elif target == "/slow-body":
        send(answer("Content-Length: 5000"))
        drip(send, b"x")
    elif target == "/slow-close":
        send(answer("Connection: close\nContent-Length: 5000"))
        drip(send, b"x")
    elif target.startswith("/bad-header"):
        send(answer("Content-Type: text/markdown\nno header at all", b"# Memo"))
    elif target == "/zipped":
        send(answer("Content-Encoding: gzip", b"\x1f\x8b"))
    elif target == "/noise":
        send(b"\x00\xff" * 1000 + b"\r\n")
    elif target == "/hang-up":
        return
    elif target.startswith("/status/"):
        send(answer("", b"secret", status=f"{target.removeprefix('/status/')} Said"))
    else:
        send(answer("Content-Type: text/markdown", b"# Memo"))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    return make_authority(tmp_path_factory.mktemp("tls"), HOST, OTHER)


@pytest.fixture(scope="module")
def server(certificates: tuple[Path, Path, Path]) -> Iterator[TlsServer]:
    with serving(certificates[1], certificates[2], respond) as server:
        yield server


class Network:
    """Names with the addresses that a test chooses. Every connection goes to the server on this machine; `dialled` holds the addresses."""

    def __init__(self, port: int, names: dict[str, list[list[str]]]) -> None:
        self._port = port
        self._names = names
        self.resolved: list[str] = []
        self.dialled: list[tuple[str, int]] = []

    def resolve(self, host: str, port: int) -> list[str]:
        """The next addresses of the name; the last ones stay."""
        self.resolved.append(host)
        answers = self._names[host]
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def connect(self, address: str, port: int, host: str, context: ssl.SSLContext, seconds: float) -> HTTPSConnection:
        self.dialled.append((address, port))
        return connect("127.0.0.1", self._port, host, context, seconds)


class Web:
    """A fetcher whose names lead to the server."""

    def __init__(self, server: TlsServer, ca: Path, names: dict[str, list[list[str]]], seconds: float = 60) -> None:
        self.network = Network(server.port, names)
        self.fetcher = HttpsFetcher(
            ALLOWED, make_context(ca), seconds, resolve=self.network.resolve, connect=self.network.connect
        )

    def get(self, uri: str, **fields: str) -> File:
        return self.fetcher.fetch(FileReference(uri, **fields), LIMIT)  # type: ignore[arg-type]

    def rejection_of(self, uri: str) -> RejectionReason:
        with pytest.raises(Rejected) as caught:
            self.get(uri)
        assert "example.com" not in caught.value.hint and "secret" not in caught.value.hint
        return caught.value.reason


@pytest.fixture
def web(server: TlsServer, certificates: tuple[Path, Path, Path]) -> Web:
    server.heads.clear()
    return Web(server, certificates[0], {HOST: [[PUBLIC]], OTHER: [["2606:4700::1111"]]})


def test_fetches_a_file_from_the_address_that_was_checked(web: Web) -> None:
    assert web.get(f"https://{HOST}/papers/memo%207.md?signature=abc#part") == File(
        b"# Memo", "memo 7.md", "text/markdown"
    )
    assert web.network.resolved == [HOST]
    assert web.network.dialled == [(PUBLIC, 443)]


def test_prefers_the_name_and_type_from_the_publisher_to_those_from_the_host(web: Web) -> None:
    assert web.get(f"https://{HOST}/named") == File(b"%PDF", "Report 7.pdf", "application/pdf")
    file = web.get(f"https://{HOST}/named", name="own.txt", content_type="text/plain")
    assert file == File(b"%PDF", "own.txt", "text/plain")


def test_sends_no_cookies_or_credentials_and_uses_no_proxy(
    web: Web, server: TlsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NETRC", "/nonexistent")
    web.get(f"https://{HOST}/hop/1")
    for head in server.heads:
        names = {line.partition(":")[0].lower() for line in head.split("\r\n")[1:] if line}
        assert names == {"host", "accept", "accept-encoding", "user-agent", "connection"}
        assert f"\r\nHost: {HOST}\r\n" in head


def test_follows_three_redirects_and_checks_each_from_the_start(web: Web) -> None:
    assert web.get(f"https://{HOST}/hop/2").data == b"# Memo"
    assert web.network.resolved == [HOST] * 4
    assert web.rejection_of(f"https://{HOST}/hop/3") == RejectionReason.UNREACHABLE
    assert web.get(f"https://{HOST}/to?https://{OTHER}/memo.md").data == b"# Memo"
    assert web.network.dialled[-1] == ("2606:4700::1111", 443)


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data/",
        "https://169.254.169.254/latest/meta-data/",
        "https://[fd00:ec2::254]/",
        "https://metadata.google.internal/computeMetadata/v1/",
        f"http://{HOST}/memo.md",
        f"https://{HOST}:8443/memo.md",
        f"https://user:secret@{HOST}/memo.md",
        "https://localhost/",
        "//127.0.0.1/",
        "file:///etc/passwd",
        "s3://quarantine/documents/x",
        "gopher://127.0.0.1:6379/_FLUSHALL",
    ],
)
def test_a_redirect_leads_only_where_a_reference_may_lead(web: Web, location: str) -> None:
    assert web.rejection_of(f"https://{HOST}/to?{location}") == RejectionReason.NOT_ALLOWED
    assert web.network.resolved == [HOST]


@pytest.mark.parametrize(
    "uri",
    [
        "https://evil.example.net/",
        "https://127.0.0.1/",
        "https://2130706433/",
        "https://0177.0.0.1/",
        "https://0x7f.0.0.1/",
        "https://127.1/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[::1/",
        "https://localhost/",
        f"https://{HOST}./",
        f"https://{HOST}.evil.example.net/",
        f"https://{HOST}@127.0.0.1/",
        f"https://user@{HOST}/",
        f"https://user:secret@{HOST}/",
        f"https://@{HOST}/",
        f"https://{HOST}:80/",
        f"https://{HOST}:8443/",
        f"https://{HOST}:0/",
        f"https://{HOST}:99999/",
        f"https://{HOST}:443:80/",
        f"https://127.0.0.1#@{HOST}/",
        f"https://127.0.0.1?@{HOST}/",
        f"https://127.0.0.1\\@{HOST}/",
        f"https://{HOST}\\@127.0.0.1/",
        f"https://127.0.0.1%2f@{HOST}/",
        f"https://127.0.0.1%00.{HOST}/",
        f"https://{HOST}%2e/",
        f"https://{HOST}\t.evil.example.net/",
        f"https://{HOST}/a b",
        f"https://{HOST}/a\r\nHost: 127.0.0.1",
        f"https://{HOST}/a\n",
        f" https://{HOST}/",
        "https://ﬁles.example.com/",
        "https://files。example.com/",
        f"http://{HOST}/",
        f"HTTPS://{HOST}/",
        f"ftp://{HOST}/",
        f"https:/{HOST}/",
        f"https:{HOST}/",
        f"//{HOST}/",
        "https:///",
        "https://",
        "file:///etc/passwd",
        "",
    ],
)
def test_an_address_that_is_not_allowed_is_not_resolved(web: Web, uri: str) -> None:
    assert web.rejection_of(uri) == RejectionReason.NOT_ALLOWED
    assert web.network.resolved == [] and web.network.dialled == []


@pytest.mark.parametrize("address", INTERNAL)
def test_a_name_with_an_internal_address_is_never_connected_to(
    server: TlsServer, certificates: tuple[Path, Path, Path], address: str
) -> None:
    assert not is_public(address)
    for addresses in ([address], [PUBLIC, address], [address, PUBLIC]):
        web = Web(server, certificates[0], {HOST: [addresses]})
        assert web.rejection_of(f"https://{HOST}/memo.md") == RejectionReason.NOT_ALLOWED
        assert web.network.dialled == []


@pytest.mark.parametrize(
    "address", [PUBLIC, "8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450::8b"]
)
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(address)


def test_a_name_is_resolved_once_per_request_and_the_first_answer_counts(
    server: TlsServer, certificates: tuple[Path, Path, Path]
) -> None:
    web = Web(server, certificates[0], {HOST: [[PUBLIC], ["127.0.0.1"]]})
    assert web.get(f"https://{HOST}/memo.md").data == b"# Memo"
    assert web.network.dialled == [(PUBLIC, 443)]
    assert web.rejection_of(f"https://{HOST}/memo.md") == RejectionReason.NOT_ALLOWED


def test_a_name_that_changes_to_an_internal_address_between_redirects_is_rejected(
    server: TlsServer, certificates: tuple[Path, Path, Path]
) -> None:
    web = Web(server, certificates[0], {HOST: [[PUBLIC], ["169.254.169.254"]]})
    assert web.rejection_of(f"https://{HOST}/hop/0") == RejectionReason.NOT_ALLOWED
    assert web.network.dialled == [(PUBLIC, 443)]


def test_a_certificate_of_another_name_or_authority_is_rejected(
    server: TlsServer, certificates: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    stranger = make_authority(tmp_path, "stranger.example.com")
    assert (
        Web(server, stranger[0], {HOST: [[PUBLIC]]}).rejection_of(f"https://{HOST}/memo.md")
        == RejectionReason.UNREACHABLE
    )
    with serving(stranger[1], stranger[2], respond) as other:
        web = Web(other, stranger[0], {HOST: [[PUBLIC]]})
        assert web.rejection_of(f"https://{HOST}/memo.md") == RejectionReason.UNREACHABLE
        assert other.heads == []


def test_more_than_the_limit_is_not_read(web: Web) -> None:
    assert web.rejection_of(f"https://{HOST}/announced") == RejectionReason.TOO_LARGE
    assert web.rejection_of(f"https://{HOST}/endless") == RejectionReason.TOO_LARGE


@pytest.mark.parametrize(
    "target", ["status/404", "status/401", "status/403", "status/410", "status/204", "zipped", "nowhere"]
)
def test_a_file_that_needs_authentication_or_does_not_exist_is_unreachable(web: Web, target: str) -> None:
    assert web.rejection_of(f"https://{HOST}/{target}") == RejectionReason.UNREACHABLE


@pytest.mark.parametrize(
    "target", ["status/500", "status/503", "status/429", "broken", "broken-chunk", "torn", "noise", "hang-up"]
)
def test_a_temporary_failure_is_unavailable(web: Web, target: str) -> None:
    with pytest.raises(Unavailable):
        web.get(f"https://{HOST}/{target}")


@pytest.mark.parametrize("target", ["slow-head", "slow-body", "slow-close"])
def test_a_host_that_drips_is_cut_off(server: TlsServer, certificates: tuple[Path, Path, Path], target: str) -> None:
    web = Web(server, certificates[0], {HOST: [[PUBLIC]]}, seconds=0.8)
    started = time.monotonic()
    with pytest.raises(Unavailable):
        web.get(f"https://{HOST}/{target}")
    assert time.monotonic() - started < 30


def test_a_host_that_drips_its_handshake_is_cut_off(certificates: tuple[Path, Path, Path]) -> None:
    def drip_record(listener: socket.socket) -> None:
        with suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"\x16\x03\x03\x40\x00")
                drip(connection.sendall, b"\x02")

    def connect_here(address: str, port: int, host: str, context: ssl.SSLContext, seconds: float) -> HTTPSConnection:
        return connect("127.0.0.1", listener.getsockname()[1], host, context, seconds)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=drip_record, args=(listener,), daemon=True).start()
        context = make_context(certificates[0])
        fetcher = HttpsFetcher(ALLOWED, context, 0.8, resolve=lambda *_: [PUBLIC], connect=connect_here)
        started = time.monotonic()
        with pytest.raises(Unavailable):
            fetcher.fetch(FileReference(f"https://{HOST}/memo.md"), LIMIT)
        assert time.monotonic() - started < 30


def test_a_body_without_a_length_ends_with_the_connection(web: Web) -> None:
    assert web.get(f"https://{HOST}/without-length").data == b"# Memo"


def test_a_strange_header_puts_no_address_into_the_log(web: Web, caplog: pytest.LogCaptureFixture) -> None:
    assert web.get(f"https://{HOST}/bad-header?signature=secret").data == b"# Memo"
    assert "secret" not in caplog.text


def test_a_name_or_an_address_that_does_not_answer_is_unavailable(certificates: tuple[Path, Path, Path]) -> None:
    def unknown(host: str, port: int) -> list[str]:
        raise socket.gaierror(-2, "unknown")

    def refused(address: str, port: int, host: str, context: ssl.SSLContext, seconds: float) -> HTTPSConnection:
        return connect("127.0.0.1", 1, host, context, seconds)

    context = make_context(certificates[0])
    fetchers = [
        HttpsFetcher(ALLOWED, context, 60, resolve=unknown),
        HttpsFetcher(ALLOWED, context, 60, resolve=lambda *_: []),
        HttpsFetcher(ALLOWED, context, 60, resolve=lambda *_: [PUBLIC], connect=refused),
    ]
    for fetcher in fetchers:
        with pytest.raises(Unavailable):
            fetcher.fetch(FileReference(f"https://{HOST}/memo.md"), LIMIT)


def test_the_next_address_is_tried_if_the_first_does_not_answer(
    server: TlsServer, certificates: tuple[Path, Path, Path]
) -> None:
    network = Network(server.port, {HOST: [["8.8.8.8", PUBLIC]]})

    def connect_to_second(
        address: str, port: int, host: str, context: ssl.SSLContext, seconds: float
    ) -> HTTPSConnection:
        if address == "8.8.8.8":
            return connect("127.0.0.1", 1, host, context, seconds)
        return network.connect(address, port, host, context, seconds)

    context = make_context(certificates[0])
    fetcher = HttpsFetcher(ALLOWED, context, 60, resolve=network.resolve, connect=connect_to_second)
    assert fetcher.fetch(FileReference(f"https://{HOST}/memo.md"), LIMIT).data == b"# Memo"
