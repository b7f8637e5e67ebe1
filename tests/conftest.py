"""Shared fixtures: the stores, started once for all tests that use them. `--stores=real` puts Apache Kafka and MinIO in the embedded ones' place."""

import fcntl
import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import Engine
from xdist.scheduler import LoadScopeScheduling

from tailor.events.access import OPERATOR, PUBLISHER
from tailor.local import secrets, stack
from tailor.local.environment import StackPlan, service_environment
from tailor.local.layout import DATABASE, STORES
from tailor.local.own_stores import load_own_stores
from tailor.local.secrets import ADMIN
from tailor.local.store_access import kafka_settings, s3_settings
from tailor.rpc import channel
from tailor.settings import KafkaSettings, ServiceSettings
from tailor.sql import connect
from tests.databases import Databases, fill, open_databases
from tests.real.fetch import fetch, folder
from tests.real.kinds import EmbeddedStores, RealStores, StoreKind

S = TypeVar("S", bound=ServiceSettings)

# Files that start a stack of their own. They run one after another, and so do those that share the fixture `stores`: however many workers
# there are, at most two stacks run. (`tests/contract/test_stacks.py` finds a file that is missing.)
OWN_STACK = (
    "tests/e2e/test_demo.py",
    "tests/e2e/test_pages.py",
    "tests/integration/test_demo.py",
    "tests/integration/test_ingestion_flow.py",
    "tests/integration/test_ingestion_tombstone.py",
    "tests/integration/test_local_stack.py",
    "tests/integration/test_local_strangers.py",
    "tests/integration/test_local_upkeep.py",
    "tests/integration/test_own_stores.py",
    "tests/integration/test_policy_replay_flow.py",
)
SHARED_STORES = (
    "tests/integration/test_event_flow.py",
    "tests/integration/test_events.py",
    "tests/integration/test_inference_service.py",
    "tests/integration/test_ingestion_load.py",
    "tests/integration/test_ingestion_references.py",
    "tests/integration/test_kafka_access.py",
    "tests/integration/test_kafka_connect.py",
    "tests/integration/test_storage.py",
)

SHARED = pytest.StashKey[Path]()

if "PYTEST_XDIST_WORKER" in os.environ:
    # There are more test processes than cores: with several threads each, torch's would mostly wait for one another.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# gRPC shares connections between channels to one address. A server that is given the port of another test's server would not be called for
# the seconds in which the other one's channel waits before it connects again.
for options in (channel.OPTIONS, channel.CALLER_OPTIONS):
    options.append(("grpc.use_local_subchannel_pool", 1))


@dataclass(frozen=True)
class Stores:
    """A running broker, object store and database."""

    plan: StackPlan

    def environment(self, service: str) -> dict[str, str]:
        """The environment that `tailor up` would give the service."""
        return service_environment(service, self.plan, os.environ)

    def settings(self, service: str, settings_type: type[S]) -> S:
        """The service's settings with its own credentials."""
        prefix = "TAILOR_"
        fields: dict[str, Any] = {
            name.removeprefix(prefix).lower(): value
            for name, value in self.environment(service).items()
            if name.startswith(prefix)
        }
        return settings_type(**fields)

    @property
    def publisher(self) -> KafkaSettings:
        """The settings of who publishes documents."""
        return self._kafka(PUBLISHER)

    @property
    def reader(self) -> KafkaSettings:
        """The settings of the operator, who may read every topic outside the raw zone."""
        return self._kafka(OPERATOR)

    @property
    def kafka_admin(self) -> ServiceSettings:
        """The settings of the broker's administrator, who may make topics of a test's own."""
        variables = self.plan.stores.kafka_admin()
        assert variables is not None
        return ServiceSettings(**kafka_settings(variables).model_dump())

    def s3(self, identity: str) -> ServiceSettings:
        """The settings of an identity at the object store; ADMIN may do everything."""
        return s3_settings(self.plan.stores.s3(identity))

    def _kafka(self, user: str) -> KafkaSettings:
        return kafka_settings(self.plan.stores.kafka(user))


class _ByFile(LoadScopeScheduling):  # type: ignore[misc]
    """Runs the tests of one file on one worker, in order, and likewise all files that share a stack or start their own."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        if path in OWN_STACK or path.startswith("tests/e2e/"):
            return "stacks"
        return "stores" if path in SHARED_STORES else path


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Distribute tests to workers by file. (xdist's own groups have no effect with pytest 9.2.)"""
    return _ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest first, so that no worker waits at the end for another: stacks, then files with slow tests, then other folders.

    The tests of the shared stack come before those that start their own, so that it can be stopped.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}

    def order(item: pytest.Item) -> tuple[bool, ...]:
        path = item.nodeid.partition("::")[0]
        return (
            not path.startswith("tests/e2e/"),
            "installation" not in getattr(item, "fixturenames", ()),
            path not in (*OWN_STACK, *SHARED_STORES),
            item.path not in slow,
            not path.startswith("tests/integration/"),
        )

    items.sort(key=order)


def pytest_collection_finish() -> None:
    """Spare garbage collections the thousands of tests and the libraries, which live until the end.

    Trainers and some tests collect explicitly, which took most of a second each time.
    """
    gc.collect()
    gc.freeze()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Choose the kind of stores, whether there is a cluster, and whether clients in other languages are built."""
    parser.addoption("--stores", choices=("embedded", "real"), default="embedded", help="the stores that tests run on")
    parser.addoption(
        "--cluster", action="store_true", help="build and start a Kubernetes control plane for tests/cluster"
    )
    parser.addoption("--node", action="store_true", help="start a real Kubernetes node on this machine, and remove it")
    parser.addoption(
        "--clients",
        action="store_true",
        help="run the clients of docs/call.md in Go, Java and TypeScript, which fetch and build",
    )


@pytest.fixture(scope="session")
def store_kind(pytestconfig: pytest.Config) -> StoreKind:
    """The kind of stores that was chosen. `python -m tests.real` fetches the real ones."""
    return EmbeddedStores() if pytestconfig.getoption("--stores") == "embedded" else RealStores(fetch(folder()))


def plan_of(running: stack.Stack) -> StackPlan:
    """The plan of a running stack, including its secrets."""
    layout = running.layout
    return StackPlan(layout, running.snapshot().ports, secrets.ensure(layout), own_stores=load_own_stores(layout))


@contextmanager
def run_stack(kind: StoreKind, prefix: str, wait_seconds: float = 600, **options: Any) -> Iterator[stack.Stack]:
    """A stack in a temporary directory, with its own stores of this kind. Blocks until it is ready."""
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as directory:
        root = Path(directory).resolve()
        with kind.run(root / "own") as tables:
            try:
                running = stack.up(root / "state", own_stores=tables, **options)
                running.wait_ready(wait_seconds)
                yield running
            finally:
                stack.down(root / "state")


@pytest.fixture(scope="session")
def stores(store_kind: StoreKind) -> Iterator[Stores]:
    """The stores, in a temporary directory."""
    with run_stack(store_kind, "tailor-test-", only=STORES) as running:
        yield Stores(plan_of(running))


@pytest.fixture(scope="session")
def databases(request: pytest.FixtureRequest) -> Iterator[Databases]:
    """The server of TAILOR_DATABASE_URL, whose role must be allowed to create databases, or an embedded one for all workers."""
    admin = os.environ.get("TAILOR_DATABASE_URL") or request.getfixturevalue("database_server")
    with open_databases(admin) as databases:
        yield databases


@pytest.fixture(scope="session")
def database_server(request: pytest.FixtureRequest) -> str:
    """The administrator's URL of an embedded database server. The first worker that needs it starts it; the session ends it."""
    folder = request.config.stash[SHARED]
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        running = stack.up(folder / "databases", only=(DATABASE,))
        running.wait_ready(600)
    return plan_of(running).stores.database_url(ADMIN)


def pytest_configure(config: pytest.Config) -> None:
    """Make the folder that all workers of this session share, and no other session."""
    workerinput = getattr(config, "workerinput", None)
    config.stash[SHARED] = Path(
        workerinput["shared"] if workerinput else tempfile.mkdtemp(prefix="tailor-tests-")
    ).resolve()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker where it is."""
    node.workerinput["shared"] = str(node.config.stash[SHARED])


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop what the workers shared, and remove the folder."""
    if not hasattr(config, "workerinput") and (folder := config.stash.get(SHARED, None)):
        stack.down(folder / "databases")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def database_url(databases: Databases) -> Iterator[str]:
    """A new empty database."""
    url = databases.create()
    yield url
    databases.drop(url)


@contextmanager
def migrated(url: str, migrations: Path) -> Iterator[Engine]:
    """An engine of an empty database, which gets a service's tables at their newest schema. Closed afterwards."""
    fill(url, migrations)
    engine = connect(url)
    yield engine
    engine.dispose()
