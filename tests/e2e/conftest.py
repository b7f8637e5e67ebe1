"""The whole embedded stack with a tiny model, started once per session."""

import shutil
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import grpc
import pytest

from services.training.recipe import FOLDER
from tailor.api.common.v1 import common_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.api.registry.v1.registry_pb2_grpc import RegistryServiceStub
from tailor.errors import TailorError
from tailor.local import stack
from tailor.local.layout import SERVICES
from tailor.local.stack import Connection, Stack
from tailor.rpc.channel import open_channel
from tests.models import make_tiny_base
from tests.real.kinds import StoreKind
from tests.waiting import wait_until

T = TypeVar("T")

LOG_LINES, LOG_CHARS = 8, 300
# What stops the shared stack.
ENDS = pytest.StashKey[ExitStack]()

SAMPLE = Path(__file__).parents[2] / "deploy" / "sample"
SETTINGS = """\
[training]
default_base = "tiny"
default_base_source = "path:{base}"
recipes_dir = "{recipes}"
price_per_device_hour = 3600.0
[inference]
base = "tiny"
engine = "transformers"
max_model_len = 2048
compute_threads = 1
"""


@dataclass(frozen=True)
class Installation:
    """A running stack, with its addresses and credentials."""

    stack: Stack
    connection: Connection
    kind: StoreKind

    @property
    def root(self) -> Path:
        """The state directory."""
        return self.stack.layout.root

    @property
    def recipes(self) -> Path:
        """The stack's copy of the recipes, to which tests add theirs."""
        return self.root.with_name("recipes")

    @property
    def operator_key(self) -> str:
        """The first operator's API key."""
        return self.connection.operator_key_file.read_text(encoding="utf-8").strip()

    @property
    def protection_key(self) -> str:
        """The first API key of data protection, which alone gives that role."""
        return self.connection.protection_key_file.read_text(encoding="utf-8").strip()

    def new_key(self, role: common_pb2.Role.ValueType, *specialists: str) -> str:
        """The secret of a new API key."""
        maker = self.protection_key if role == common_pb2.ROLE_DATA_PROTECTION else self.operator_key
        request = registry_pb2.CreateKeyRequest(name="test", role=role, specialists=specialists)
        return RegistryServiceStub(self.channel("registry", maker)).CreateKey(request, timeout=60).secret

    def channel(self, service: str, key: str | None = None) -> grpc.Channel:
        """A channel with an API key, by default the operator's."""
        token = self.operator_key if key is None else key
        return open_channel(self.connection.service_addresses[service], lambda: token)

    @property
    def registry(self) -> RegistryServiceStub:
        """The registry's stub, as the operator."""
        return RegistryServiceStub(self.channel("registry"))

    def restart_own_store(self, component: str) -> bool:
        """Kill a store that is not embedded, and start it again. False for an embedded one."""
        return self.kind.restart(self.root.with_name("own"), component)

    def pid(self, component: str) -> int:
        """The pid of a component."""
        process = self.stack.snapshot().components[component].process
        assert process is not None
        return process.pid


def ask_until(ask: Callable[[], T | None], description: str, seconds: float = 240, *, pause: float = 0.3) -> T:
    """Ask the services until the answer is true, pausing before each question, and return it. Waits out retryable errors."""

    def attempt() -> T | None:
        time.sleep(pause)
        try:
            return ask()
        except TailorError as error:
            if not error.retryable:
                raise
        except grpc.RpcError as error:
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise
        return None

    answer = wait_until(attempt, seconds, description)
    assert answer is not None
    return answer


def copy_recipes(target: Path) -> Path:
    """Copy the shipped recipes. `tiny` then learns enough that a few held-out rows leave no doubt with any surrogates."""
    recipes = shutil.copytree(FOLDER, target)
    tiny = (recipes / "tiny.toml").read_text(encoding="utf-8")
    learning = tiny.replace("learning_rate = 2e-3", "learning_rate = 1e-2").replace("max_steps = 8", "max_steps = 24")
    assert learning != tiny
    (recipes / "tiny.toml").write_text(learning, encoding="utf-8")
    return recipes


@pytest.fixture(scope="session")
def installation(store_kind: StoreKind, request: pytest.FixtureRequest) -> Iterator[Installation]:
    """The running stack that all tests share; stopped and removed at the end."""
    with tempfile.TemporaryDirectory(prefix="tailor-e2e-", ignore_cleanup_errors=True) as directory:
        root = Path(directory).resolve()
        texts = [path.read_text(encoding="utf-8") for path in sorted((SAMPLE / "source").rglob("*.md"))]
        base = make_tiny_base(root / "tiny-base", texts)
        state = root / "state"
        state.mkdir(mode=0o700)
        recipes = copy_recipes(root / "recipes")
        (state / "settings.toml").write_text(SETTINGS.format(base=base, recipes=recipes), encoding="utf-8")
        with store_kind.run(root / "own") as tables, ExitStack() as ends:
            request.config.stash[ENDS] = ends
            running = stack.up(state, own_stores=tables)
            ends.callback(stack.down, state)
            running.wait_ready(600)
            yield Installation(running, stack.connection(state), store_kind)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Stop the shared stack after the last of its tests instead of at the session's end: idle, it takes a tenth of a core."""
    if nextitem is None or "installation" not in getattr(nextitem, "fixturenames", ()):
        item.config.stash.get(ENDS, ExitStack()).close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the services last did when a test of the shared stack fails: a machine elsewhere keeps no logs."""
    report = yield
    shared = getattr(item, "funcargs", {}).get("installation")
    if report.failed and isinstance(shared, Installation):
        for service in SERVICES:
            log = shared.stack.layout.log_file(service)
            # At the end of the session the folder is removed before the report of its last test.
            written = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
            # Elsewhere only the first part of a report may be kept, so leave out what went well.
            lines = [line for line in written if '"level": "info"' not in line]
            report.sections.append((service, "\n".join(line[:LOG_CHARS] for line in lines[-LOG_LINES:])))
    return report
