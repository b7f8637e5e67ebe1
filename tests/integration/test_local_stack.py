"""The real embedded stack: three stores, and a fake service."""

import io
import os
import re
import signal
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient
from minio import Minio
from minio.error import S3Error

from tailor.errors import DeadlineExceeded, FailedPrecondition, Unavailable
from tailor.events.topics import load_topics
from tailor.local import processes, stack
from tailor.local.layout import DATABASE, STORES, WITH_DATABASE, Layout
from tailor.local.ports import PORT_NAMES
from tailor.local.runner import NO_ANSWER
from tailor.local.secrets import Secrets, ensure
from tailor.local.state import StackSnapshot
from tailor.storage.buckets import BUCKETS
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

READY_SECONDS = 600.0

FAKE_SERVICE = """
    import http.server, json, os, pathlib, subprocess, sys, threading
    from concurrent import futures
    import grpc
    from grpc_health.v1 import health, health_pb2, health_pb2_grpc

    pathlib.Path("environment.json").write_text(json.dumps(dict(os.environ)))
    # Its children must not outlive it, not even in their own session.
    subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"], start_new_session=True)
    subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"], env={})

    servicer = health.HealthServicer()
    gate = pathlib.Path("closed")

    class Ready(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            closed = gate.exists()
            body = json.dumps({"ready": not closed, "waiting_for": "the gate" if closed else None}).encode()
            self.send_response(503 if closed else 200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    def follow():
        while True:
            state = health_pb2.HealthCheckResponse
            servicer.set("", state.NOT_SERVING if gate.exists() else state.SERVING)
            threading.Event().wait(0.1)

    server = grpc.server(futures.ThreadPoolExecutor(4))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    server.add_insecure_port("127.0.0.1:" + os.environ["TAILOR_RPC_PORT"])
    server.start()
    threading.Thread(target=follow, daemon=True).start()
    http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["TAILOR_STATUS_PORT"])), Ready).serve_forever()
"""


@pytest.fixture
def fake_path(tmp_path: Path) -> Path:
    path = tmp_path / "modules"
    path.mkdir()
    (path / "fake_service.py").write_text(textwrap.dedent(FAKE_SERVICE))
    return path


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    state_dir = tmp_path_factory.mktemp("stores") / ".tailor"
    yield _up_stores(state_dir)
    stack.down(state_dir)
    assert _processes_of(state_dir) == []


def _up_stores(state_dir: Path) -> Path:
    stack.up(state_dir, only=STORES).wait_ready(READY_SECONDS)
    return state_dir


def _up_fake(state_dir: Path, fake_path: Path, *names: str) -> stack.Stack:
    services = dict.fromkeys(names or ("ingestion",), "fake_service")
    return stack.up(state_dir, only=tuple(services), services=services, python_path=[fake_path])


def _secrets(state_dir: Path) -> Secrets:
    return ensure(Layout(state_dir))


def _s3(state_dir: Path, identity: str) -> Minio:
    key = _secrets(state_dir).s3(identity)
    endpoint = stack.connection(state_dir).s3_endpoint
    return Minio(endpoint, access_key=key.access_key, secret_key=key.secret_key, secure=False, region="us-east-1")


def _sql(state_dir: Path, role: str, database: str, password: str | None = None) -> psycopg.Connection:
    snapshot = stack.status(state_dir)
    assert snapshot is not None
    return psycopg.connect(
        host="127.0.0.1",
        port=snapshot.ports["database"],
        user=role,
        password=password or _secrets(state_dir).database_password(role),
        dbname=database,
        connect_timeout=60,
    )


def _pid(snapshot: StackSnapshot, component: str) -> int:
    process = snapshot.components[component].process
    assert process is not None
    return process.pid


def _processes_of(state_dir: Path) -> list[str]:
    """The command lines of all processes that name the state directory in an argument or in their environment."""
    root = str(state_dir.resolve())
    commands = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            reference = processes.identify(int(entry.name))
            if reference is None or not reference.is_alive():
                continue
            command = " ".join(processes.command_of(reference.pid))
            if root in command or reference.pid in processes.find_marked(state_dir.resolve()):
                commands.append(command)
    return commands


def _descendants(pid: int) -> list[processes.ProcessRef]:
    descendants = []
    for child in processes.children_of(pid):
        reference = processes.identify(child)
        if reference is not None:
            descendants += [reference, *_descendants(child)]
    return descendants


def test_every_topic_exists_and_carries_events(stores: Path) -> None:
    bootstrap = stack.connection(stores).publisher.kafka_bootstrap_servers
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    described = {topic["name"]: len(topic["partitions"]) for topic in admin.describe_topics(list(load_topics()))}
    admin.close()
    assert described == {name: topic.partitions for name, topic in load_topics().items()}
    producer = KafkaProducer(bootstrap_servers=bootstrap)
    producer.send("run.failed.v1", b"value", b"key").get(60)
    producer.close()
    consumer = KafkaConsumer(
        "run.failed.v1", bootstrap_servers=bootstrap, auto_offset_reset="earliest", consumer_timeout_ms=60_000
    )
    assert next(consumer).value == b"value"
    consumer.close()


def test_a_services_key_reaches_only_its_own_buckets(stores: Path) -> None:
    ingestion = _s3(stores, "ingestion")
    ingestion.put_object("quarantine", "a", io.BytesIO(b"raw"), 3)
    assert ingestion.get_object("quarantine", "a").read() == b"raw"
    for bucket in set(BUCKETS) - {"quarantine"}:
        with pytest.raises(S3Error, match="AccessDenied"):
            ingestion.put_object(bucket, "a", io.BytesIO(b"raw"), 3)
        with pytest.raises(S3Error, match="AccessDenied"):
            list(ingestion.list_objects(bucket))
    for stranger in ("training", "synthetic", "inference", "registry"):
        with pytest.raises(S3Error, match="AccessDenied"):
            _s3(stores, stranger).get_object("quarantine", "a")


def test_a_reader_cannot_write(stores: Path) -> None:
    _s3(stores, "training").put_object("models", "m", io.BytesIO(b"weights"), 7)
    inference = _s3(stores, "inference")
    assert inference.get_object("models", "m").read() == b"weights"
    with pytest.raises(S3Error, match="AccessDenied"):
        inference.put_object("models", "m", io.BytesIO(b"others"), 6)
    with pytest.raises(S3Error, match="AccessDenied"):
        inference.remove_object("models", "m")


def test_everything_listens_only_on_the_loopback_address(stores: Path) -> None:
    snapshot = stack.status(stores)
    assert snapshot is not None
    ports = {snapshot.ports[name] for name in PORT_NAMES}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            address, port = line.split()[1].split(":")
            if int(port, 16) in ports and line.split()[3] == "0A":
                assert address == "0100007F"


def test_a_role_reaches_only_its_own_database(stores: Path) -> None:
    for role in WITH_DATABASE:
        with _sql(stores, role, role) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS mine (id int)")
        others = {*WITH_DATABASE, "postgres", "template1"} - {role}
        for other in others:
            with pytest.raises(psycopg.OperationalError):
                _sql(stores, role, other)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        _sql(stores, "registry", "registry", password="wrong")


def test_a_second_up_finds_the_same_stack(stores: Path) -> None:
    before = stack.status(stores)
    again = stack.up(stores, only=STORES).snapshot()
    assert before is not None
    assert again.supervisor == before.supervisor


def test_two_stacks_run_side_by_side(stores: Path, tmp_path: Path) -> None:
    other = tmp_path / ".tailor"
    try:
        _up_stores(other)
        assert stack.connection(other).s3_endpoint != stack.connection(stores).s3_endpoint
        _s3(other, "ingestion").put_object("quarantine", "other", io.BytesIO(b"x"), 1)
        assert [item.object_name for item in _s3(stores, "ingestion").list_objects("quarantine", "other")] == []
        with pytest.raises(psycopg.OperationalError):
            _sql(stores, "registry", "registry", password=_secrets(other).database_password("registry"))
    finally:
        stack.down(other)
    assert _processes_of(other) == []
    assert (snapshot := stack.status(stores)) is not None
    assert snapshot.ready


@pytest.mark.parametrize("name", ["broker", "store"])
def test_a_frozen_store_is_not_ready_until_it_goes_on(stores: Path, name: str) -> None:
    running = stack.Stack(Layout(stores.resolve()))
    frozen = _pid(running.snapshot(), name)
    os.kill(frozen, signal.SIGSTOP)
    try:
        wait_until(lambda: running.snapshot().components[name].detail == NO_ANSWER)
        assert not running.snapshot().ready
    finally:
        os.kill(frozen, signal.SIGCONT)
    assert running.wait_ready(READY_SECONDS).components[name].restarts == 0


def test_killed_stores_come_back_with_their_data(stores: Path) -> None:
    bootstrap = stack.connection(stores).publisher.kafka_bootstrap_servers
    _s3(stores, "ingestion").put_object("quarantine", "kept", io.BytesIO(b"raw"), 3)
    with _sql(stores, "registry", "registry") as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS id")
    producer = KafkaProducer(bootstrap_servers=bootstrap)
    producer.send("run.progressed.v1", b"kept", b"key").get(60)
    producer.close()
    time.sleep(3)  # the broker writes its data to disk about once per second
    before = stack.Stack(Layout(stores.resolve())).snapshot()
    for name in STORES:
        os.kill(_pid(before, name), signal.SIGKILL)
    running = stack.Stack(Layout(stores.resolve()))
    wait_until(
        lambda: all(
            part.restarts > before.components[name].restarts for name, part in running.snapshot().components.items()
        )
    )
    running.wait_ready(READY_SECONDS)
    assert _s3(stores, "ingestion").get_object("quarantine", "kept").read() == b"raw"
    with _sql(stores, "registry", "registry") as connection:
        assert connection.execute("SELECT id FROM kept").fetchone() == (7,)
    consumer = KafkaConsumer(
        "run.progressed.v1", bootstrap_servers=bootstrap, auto_offset_reset="earliest", consumer_timeout_ms=60_000
    )
    assert next(consumer).value == b"kept"
    consumer.close()


def test_a_killed_supervisor_leaves_no_process_and_up_recovers(tmp_path: Path) -> None:
    state_dir = _up_stores(tmp_path / ".tailor")
    try:
        before = stack.Stack(Layout(state_dir.resolve())).snapshot()
        assert before.supervisor is not None
        descendants = _descendants(before.supervisor.pid)
        assert len(descendants) >= 3
        os.kill(before.supervisor.pid, signal.SIGKILL)
        wait_until(lambda: not any(process.is_alive() for process in descendants), 10)
        wait_until(lambda: _processes_of(state_dir) == [], 10)
        assert (stale := stack.status(state_dir)) is not None
        assert {part.state for part in stale.components.values()} == {"stopped"}
        after = stack.up(state_dir, only=STORES).wait_ready(READY_SECONDS)
        assert after.port_base == before.port_base
    finally:
        stack.down(state_dir)
    assert _processes_of(state_dir) == []


def test_a_supervisor_that_does_not_begin_is_ended_and_up_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state_dir = tmp_path / ".tailor"
    monkeypatch.setattr(stack, "START_SECONDS", 0.0)
    with pytest.raises(Unavailable, match="did not start"):
        stack.up(state_dir, only=STORES)
    wait_until(lambda: _processes_of(state_dir) == [], 10)


def test_a_service_is_monitored_restarted_and_cleaned_up(tmp_path: Path, fake_path: Path) -> None:
    state_dir = tmp_path / ".tailor"
    scratch = Layout(state_dir.resolve()).scratch("ingestion")
    scratch.mkdir(parents=True)
    (scratch / "closed").touch()
    try:
        running = _up_fake(state_dir, fake_path)
        wait_until(lambda: running.snapshot().components["ingestion"].detail == "the gate")
        assert running.snapshot().components["ingestion"].state == "waiting"
        with pytest.raises(DeadlineExceeded, match="ingestion"):
            running.wait_ready(0.5)
        (scratch / "closed").unlink()
        first = running.wait_ready(READY_SECONDS)
        children = _descendants(_pid(first, "ingestion"))
        assert len(children) == 2
        os.kill(_pid(first, "ingestion"), signal.SIGKILL)
        wait_until(lambda: running.snapshot().components["ingestion"].restarts == 1)
        second = running.wait_ready(READY_SECONDS)
        assert _pid(second, "ingestion") != _pid(first, "ingestion")
        assert not any(process.is_alive() for process in children)
    finally:
        children = _descendants(_pid(running.snapshot(), "ingestion"))
        stack.down(state_dir)
    assert len(children) == 2
    assert not any(process.is_alive() for process in children)
    assert _processes_of(state_dir) == []


def test_down_finds_what_a_killed_supervisor_and_guard_leave_behind(tmp_path: Path, fake_path: Path) -> None:
    state_dir = tmp_path / ".tailor"
    try:
        snapshot = _up_fake(state_dir, fake_path).wait_ready(READY_SECONDS)
        assert snapshot.supervisor is not None
        guard = int(re.findall(r"PPid:\s+(\d+)", Path(f"/proc/{snapshot.supervisor.pid}/status").read_text())[0])
        os.kill(guard, signal.SIGKILL)
        os.kill(snapshot.supervisor.pid, signal.SIGKILL)
    finally:
        stack.down(state_dir)
    assert _processes_of(state_dir) == []


def test_a_service_that_never_becomes_ready_is_failed(tmp_path: Path, fake_path: Path) -> None:
    (fake_path / "broken_service.py").write_text("raise SystemExit(3)\n")
    services = {"registry": "broken_service"}
    try:
        running = stack.up(tmp_path / ".tailor", only=("registry",), services=services, python_path=[fake_path])
        wait_until(lambda: running.snapshot().components["registry"].state == "failed", 60)
        assert "ended with code 3" in running.snapshot().components["registry"].detail
    finally:
        stack.down(tmp_path / ".tailor")


def test_up_says_that_the_database_is_of_another_release(tmp_path: Path) -> None:
    state_dir = tmp_path / ".tailor"
    try:
        stack.up(state_dir, only=(DATABASE,)).wait_ready(READY_SECONDS)
        with _sql(state_dir, "ingestion", "ingestion") as connection:
            connection.execute("CREATE TABLE alembic_version AS SELECT '0400' AS version_num")
        stack.down(state_dir)
        with pytest.raises(
            FailedPrecondition, match=r"ingestion ended .* revision 0400, which this release does not know"
        ):
            stack.up(state_dir, only=(DATABASE, "ingestion")).wait_ready(READY_SECONDS)
        with _sql(state_dir, "ingestion", "ingestion") as connection:
            assert connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall() == [
                ("alembic_version",)
            ]
    finally:
        stack.down(state_dir)
