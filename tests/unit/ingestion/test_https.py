"""Fetching over https: what is fetched, and every way inside that is refused. The server is real, the names are not."""

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.ingestion.adapters.addresses import is_public
from services.ingestion.adapters.https import HttpsFetcher, trust
from services.ingestion.domain import File, Reference, Rejected, RejectionReason
from tailor.errors import Unavailable
from tests.unit.ingestion.tls import PUBLIC, Network, TlsServer, make_authority, serving

HOST = "files.example.com"
OTHER = "other.example.com"
LIMIT = 100_000
ALLOWED = [(HOST, 443), (OTHER, 443)]
Send = Callable[[bytes], None]
INSIDE = [
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
    for _ in range(200):
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
    elif target == "/broken-chunk":
        send(answer("Transfer-Encoding: chunked") + b"ff\r\nhalf")
    elif target == "/slow-head":
        drip(send, b"H")
    elif target == "/slow-body":
        send(answer("Content-Length: 5000"))
        drip(send, b"x")
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


class Web:
    """A fetcher over the server, with names of its own."""

    def __init__(self, server: TlsServer, ca: Path, names: dict[str, list[list[str]]], seconds: float = 5) -> None:
        self.network = Network(server.port, names)
        self.fetcher = HttpsFetcher(ALLOWED, trust(ca), seconds, resolve=self.network.resolve, dial=self.network.dial)

    def get(self, uri: str, **said: str) -> File:
        return self.fetcher.fetch(Reference(uri, **said), LIMIT)  # type: ignore[arg-type]

    def refusal(self, uri: str) -> RejectionReason:
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


def test_takes_the_name_and_type_that_the_publisher_gave_and_the_hosts_otherwise(web: Web) -> None:
    assert web.get(f"https://{HOST}/named") == File(b"%PDF", "Report 7.pdf", "application/pdf")
    said = web.get(f"https://{HOST}/named", name="own.txt", content_type="text/plain")
    assert said == File(b"%PDF", "own.txt", "text/plain")


def test_sends_no_cookie_no_credential_and_asks_no_proxy(
    web: Web, server: TlsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NETRC", "/nonexistent")
    web.get(f"https://{HOST}/hop/1")
    for head in server.heads:
        names = {line.partition(":")[0].lower() for line in head.split("\r\n")[1:] if line}
        assert names == {"host", "accept", "accept-encoding", "user-agent", "connection"}


def test_follows_three_redirects_and_checks_each_from_the_start(web: Web) -> None:
    assert web.get(f"https://{HOST}/hop/2").data == b"# Memo"
    assert web.network.resolved == [HOST] * 4
    assert web.refusal(f"https://{HOST}/hop/3") == RejectionReason.UNREACHABLE
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
def test_a_redirect_leads_nowhere_that_may_not_be_asked_directly(web: Web, location: str) -> None:
    assert web.refusal(f"https://{HOST}/to?{location}") == RejectionReason.NOT_ALLOWED
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
def test_an_address_that_is_not_allowed_is_never_even_resolved(web: Web, uri: str) -> None:
    assert web.refusal(uri) == RejectionReason.NOT_ALLOWED
    assert web.network.resolved == [] and web.network.dialled == []


@pytest.mark.parametrize("address", INSIDE)
def test_a_name_that_leads_inside_is_never_connected_to(
    server: TlsServer, certificates: tuple[Path, Path, Path], address: str
) -> None:
    assert not is_public(address)
    for meaning in ([address], [PUBLIC, address], [address, PUBLIC]):
        web = Web(server, certificates[0], {HOST: [meaning]})
        assert web.refusal(f"https://{HOST}/memo.md") == RejectionReason.NOT_ALLOWED
        assert web.network.dialled == []


@pytest.mark.parametrize(
    "address", [PUBLIC, "8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450::8b"]
)
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(address)


def test_a_name_that_changes_its_meaning_is_asked_once_and_the_first_answer_holds(
    server: TlsServer, certificates: tuple[Path, Path, Path]
) -> None:
    web = Web(server, certificates[0], {HOST: [[PUBLIC], ["127.0.0.1"]]})
    assert web.get(f"https://{HOST}/memo.md").data == b"# Memo"
    assert web.network.dialled == [(PUBLIC, 443)]
    assert web.refusal(f"https://{HOST}/memo.md") == RejectionReason.NOT_ALLOWED


def test_a_name_that_changes_its_meaning_between_redirects_is_refused(
    server: TlsServer, certificates: tuple[Path, Path, Path]
) -> None:
    web = Web(server, certificates[0], {HOST: [[PUBLIC], ["169.254.169.254"]]})
    assert web.refusal(f"https://{HOST}/hop/0") == RejectionReason.NOT_ALLOWED
    assert web.network.dialled == [(PUBLIC, 443)]


def test_a_certificate_of_another_name_or_authority_is_refused(
    server: TlsServer, certificates: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    stranger = make_authority(tmp_path, "stranger.example.com")
    assert (
        Web(server, stranger[0], {HOST: [[PUBLIC]]}).refusal(f"https://{HOST}/memo.md") == RejectionReason.UNREACHABLE
    )
    with serving(stranger[1], stranger[2], respond) as other:
        web = Web(other, stranger[0], {HOST: [[PUBLIC]]})
        assert web.refusal(f"https://{HOST}/memo.md") == RejectionReason.UNREACHABLE
        assert other.heads == []


def test_more_than_the_limit_is_not_read(web: Web) -> None:
    assert web.refusal(f"https://{HOST}/announced") == RejectionReason.TOO_LARGE
    assert web.refusal(f"https://{HOST}/endless") == RejectionReason.TOO_LARGE


@pytest.mark.parametrize(
    "target", ["status/404", "status/401", "status/403", "status/410", "status/204", "zipped", "nowhere"]
)
def test_what_is_not_there_for_everybody_is_unreachable(web: Web, target: str) -> None:
    assert web.refusal(f"https://{HOST}/{target}") == RejectionReason.UNREACHABLE


@pytest.mark.parametrize(
    "target", ["status/500", "status/503", "status/429", "broken", "broken-chunk", "noise", "hang-up"]
)
def test_what_fails_for_now_may_be_asked_again(web: Web, target: str) -> None:
    with pytest.raises(Unavailable):
        web.get(f"https://{HOST}/{target}")


@pytest.mark.parametrize("target", ["slow-head", "slow-body"])
def test_a_host_that_drips_is_cut_off(server: TlsServer, certificates: tuple[Path, Path, Path], target: str) -> None:
    web = Web(server, certificates[0], {HOST: [[PUBLIC]]}, seconds=0.8)
    started = time.monotonic()
    with pytest.raises(Unavailable):
        web.get(f"https://{HOST}/{target}")
    assert time.monotonic() - started < 4


def test_a_name_or_an_address_that_does_not_answer_is_unavailable(certificates: tuple[Path, Path, Path]) -> None:
    def unknown(host: str, port: int) -> list[str]:
        raise socket.gaierror(-2, "unknown")

    def refused(address: str, port: int, seconds: float) -> socket.socket:
        raise ConnectionRefusedError

    context = trust(certificates[0])
    fetchers = [
        HttpsFetcher(ALLOWED, context, 5, resolve=unknown),
        HttpsFetcher(ALLOWED, context, 5, resolve=lambda *_: []),
        HttpsFetcher(ALLOWED, context, 5, resolve=lambda *_: [PUBLIC], dial=refused),
    ]
    for fetcher in fetchers:
        with pytest.raises(Unavailable):
            fetcher.fetch(Reference(f"https://{HOST}/memo.md"), LIMIT)


def test_the_next_address_is_tried_where_the_first_does_not_answer(
    server: TlsServer, certificates: tuple[Path, Path, Path]
) -> None:
    network = Network(server.port, {HOST: [["8.8.8.8", PUBLIC]]})

    def dial(address: str, port: int, seconds: float) -> socket.socket:
        if address == "8.8.8.8":
            raise TimeoutError
        return network.dial(address, port, seconds)

    fetcher = HttpsFetcher(ALLOWED, trust(certificates[0]), 5, resolve=network.resolve, dial=dial)
    assert fetcher.fetch(Reference(f"https://{HOST}/memo.md"), LIMIT).data == b"# Memo"
