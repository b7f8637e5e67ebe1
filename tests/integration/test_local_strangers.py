"""A stranger on the machine, such as another account or a web page, at every port of the embedded stores."""

import http.client
import io
import os
import ssl
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from minio import Minio

from tailor.local import processes, stack
from tailor.local.layout import STORES, Layout
from tailor.local.ports import STORE_PORTS
from tailor.local.secrets import ADMIN, ensure
from tailor.storage.buckets import BUCKETS
from tests.untrusted_clients import as_stranger, ask, listening_ports

pytestmark = [pytest.mark.integration, pytest.mark.slow]

# SeaweedFS's own paths, by which its ports delete, write, grow, read and describe.
PATHS = (
    "/",
    "/ui/index.html",
    "/status",
    "/stats/counter",
    "/stats/disk",
    "/debug/pprof/",
    "/cluster/status",
    "/dir/status",
    "/dir/assign?collection=corpus",
    "/dir/assign?collection=corpus&count=1&writableVolumeCount=1",
    "/dir/lookup?volumeId=1&collection=corpus",
    "/dir/lookup?fileId=1,01637037d6&read=yes",
    "/vol/status",
    "/vol/grow?collection=corpus&count=1",
    "/vol/vacuum?garbageThreshold=0.00001",
    "/vol/volumes",
    "/col/delete?collection=corpus",
    "/submit",
    "/1,01637037d6",
    "/buckets/",
    "/buckets/corpus/letter",
    "/corpus",
    "/corpus/letter",
)
# The S3 gateway's health has no content. The embedded broker, which asks nobody, is not asked here.
HEALTH = {("s3", "/status")}
SILENT = ("broker", "database")


@pytest.fixture(scope="module")
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("strangers") / ".tailor"
    stack.up(directory, only=STORES).wait_ready(600)
    yield directory
    stack.down(directory)


@pytest.fixture(scope="module")
def ports(state_dir: Path) -> Mapping[str, int]:
    """Every port on which a process of the stack listens, by name."""
    snapshot = stack.Stack(Layout(state_dir.resolve())).snapshot()
    names = {snapshot.ports[name]: name for name in STORE_PORTS}
    found = {names.get(port, "broker's control"): port for port in listening_ports(state_dir.resolve())}
    # The broker's own commands use a port that it chooses, with a token from its folder.
    assert set(found) == {*STORE_PORTS, "broker's control"}
    return found


def _client(state_dir: Path) -> Minio:
    key = ensure(Layout(state_dir)).s3(ADMIN)
    endpoint = stack.connection(state_dir).s3_endpoint
    return Minio(endpoint, access_key=key.access_key, secret_key=key.secret_key, secure=False, region="us-east-1")


def _without_certificate() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE"])
def test_no_port_serves_a_stranger(state_dir: Path, ports: Mapping[str, int], method: str) -> None:
    client = _client(state_dir)
    for bucket in BUCKETS:
        client.put_object(bucket, "letter", io.BytesIO(b"raw"), 3)
    served, context = [], _without_certificate()
    for name in sorted(set(ports) - set(SILENT)):
        for path in PATHS:
            plain = http.client.HTTPConnection("127.0.0.1", ports[name], timeout=10)
            encrypted = http.client.HTTPSConnection("127.0.0.1", ports[name], timeout=10, context=context)
            for kind, connection in (("http", plain), ("https", encrypted)):
                status = ask(connection, method, path)
                if 0 < status < 400 and (name, path) not in HEALTH:
                    served.append((name, kind, path, status))
    assert served == []
    for bucket in BUCKETS:
        assert [item.object_name for item in client.list_objects(bucket)] == ["letter"]
        assert client.get_object(bucket, "letter").read() == b"raw"


@pytest.mark.parametrize("part", ["master", "volume", "filer", "s3"])
def test_no_grpc_port_of_the_store_answers_without_its_certificate(ports: Mapping[str, int], part: str) -> None:
    address = f"127.0.0.1:{ports[f'{part}-grpc']}"
    service = {"master": "Seaweed", "volume": "VolumeServer", "filer": "SeaweedFiler", "s3": "SeaweedS3"}[part]
    method = f"/{part if part != 's3' else 'messaging'}_pb.{service}/Ping"
    for channel in (grpc.insecure_channel(address), grpc.secure_channel(address, grpc.ssl_channel_credentials())):
        with channel, pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary(method, None, None)(b"", timeout=60)
        assert refused.value.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}


@pytest.mark.parametrize("user", ["postgres", "registry", "root"])
def test_the_database_asks_for_a_password(ports: Mapping[str, int], user: str) -> None:
    with pytest.raises(psycopg.OperationalError, match=r"password|no pg_hba\.conf entry"):
        psycopg.connect(host="127.0.0.1", port=ports["database"], user=user, dbname="postgres", connect_timeout=5)


def test_a_certificate_of_another_stack_opens_nothing(tmp_path: Path, ports: Mapping[str, int]) -> None:
    from tailor.local.certificates import renew_certificates

    renew_certificates(tmp_path)
    context = _without_certificate()
    context.load_cert_chain(tmp_path / "store.pem", tmp_path / "store.key")
    for name in ("master", "volume", "filer"):
        connection = http.client.HTTPSConnection("127.0.0.1", ports[name], timeout=10, context=context)
        assert ask(connection, "GET", "/dir/assign?collection=corpus") == 0


def test_the_stores_certificate_opens_its_own_ports(state_dir: Path, ports: Mapping[str, int]) -> None:
    """The tests above would pass for a store that answers nobody."""
    folder = Layout(state_dir.resolve()).data("store")
    context = _without_certificate()
    context.load_cert_chain(folder / "store.pem", folder / "store.key")
    connection = http.client.HTTPSConnection("127.0.0.1", ports["master"], timeout=10, context=context)
    assert ask(connection, "GET", "/dir/status") == 200
    assert (folder / "store.key").stat().st_mode & 0o077 == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change its account")
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_no_port_serves_a_process_of_another_account(state_dir: Path, ports: Mapping[str, int], method: str) -> None:
    client = _client(state_dir)
    client.put_object("corpus", "letter", io.BytesIO(b"raw"), 3)

    def try_all() -> list[list[Any]]:
        served = []
        for name in sorted(set(ports) - set(SILENT)):
            for path in PATHS:
                status = ask(http.client.HTTPConnection("127.0.0.1", ports[name], timeout=10), method, path)
                if 0 < status < 400 and (name, path) not in HEALTH:
                    served.append([os.geteuid(), name, path, status])
        return served

    assert as_stranger(try_all) == []
    assert client.get_object("corpus", "letter").read() == b"raw"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change its account")
def test_a_process_of_another_account_opens_no_file_of_the_stack(state_dir: Path) -> None:
    folder = state_dir.resolve()
    # The folders above it belong to pytest, which closes them too: the stack's own must do without.
    files = [str(path) for path in folder.rglob("*") if path.is_file()]
    root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)

    def open_all() -> list[str]:
        opened = []
        for file in files:
            with suppress(OSError):
                os.close(os.open(os.path.relpath(file, folder), os.O_RDONLY, dir_fd=root))
                opened.append(file)
        return opened

    try:
        assert len(files) > 20
        assert as_stranger(open_all) == []
    finally:
        os.close(root)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change its account")
def test_a_process_of_another_account_signals_no_process_of_the_stack(state_dir: Path) -> None:
    pids = list(processes.find_marked(state_dir.resolve()))

    def signal_all() -> list[int]:
        reached = []
        for pid in pids:
            with suppress(OSError):
                os.kill(pid, 0)
                reached.append(pid)
            with suppress(OSError):
                reached.append(len(Path(f"/proc/{pid}/environ").read_bytes()))
        return reached

    assert len(pids) >= 3
    assert as_stranger(signal_all) == []
