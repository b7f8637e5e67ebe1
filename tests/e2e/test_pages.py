"""Every command of the pages for readers, run as it stands against the embedded stack; those of publish.md also on Apache Kafka and MinIO."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from services.training.recipe import FOLDER
from tailor.api.registry.v1 import registry_pb2
from tailor.api.registry.v1.registry_pb2_grpc import RegistryServiceStub
from tailor.cli.calls import list_adapters
from tailor.local import stack
from tailor.local.stack import Connection
from tailor.rpc.channel import open_channel
from tests.e2e import conftest
from tests.e2e.conftest import SAMPLE, SETTINGS
from tests.models import make_tiny_base
from tests.real.kinds import StoreKind
from tests.real.page import kcat_environment

pytestmark = pytest.mark.e2e

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
SPECIALIST = "engagement-reports"
# In the order in which a company would follow them: later pages use what earlier ones made.
PAGES = ("publish.md", "operate.md", "call.md", "judge.md")
# The other pages do the same on all stores.
OWN_STORES_PAGE = "publish.md"
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```", re.DOTALL | re.MULTILINE)
MAY_FAIL = re.compile(r"# may fail: ([A-Z_]+)")
# Tools that a block needs besides Tailor. Without one the block is skipped, and the skip names it.
CLIENT_TOOLS = {"go run": "go", "npm ": "npm", "mvn ": "mvn"}
# kcat publishes the memo that a later block shows.
TOOLS = {"kcat": "kcat", "documents show memo-7": "kcat", "grpcurl ": "grpcurl", **CLIENT_TOOLS}
# Maven runs for seconds: compiling its own code with all optimisations takes longer than they save.
QUICK_JAVA = {"MAVEN_OPTS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"}
DEFINITION = f"""\
name = "{SPECIALIST}"
base = "tiny"
recipe = "tiny"
keep_drafts = true
stages = ["sft", "dpo"]
[rows]
# Of the few documents, enough for an interval: rows of one document have none.
held_out_percent = 40
[sampling]
max_tokens = 24
[evaluation]
max_rows = 12
max_answers = 6
max_suite_items = 4
[gate]
min_rows = 1
beat = ["base"]
[gate.primary]
metric = "perplexity"
min_gain = -1000000.0
min_gain_over_incumbent = -1000000.0
"""


@dataclass(frozen=True)
class Reader:
    """Somebody who follows the pages in a checkout with a running stack. `addresses` are the lines of `tailor env`.

    `registry` answers questions that are asked often; each start of the command line takes most of a second of a core.
    """

    folder: Path
    environment: dict[str, str]
    addresses: str
    registry: RegistryServiceStub

    def run(self, language: str, code: str) -> subprocess.CompletedProcess[str]:
        """Run a block in a new shell that knows the stack's addresses."""
        if language == "python":
            code = f"exec .venv/bin/python - <<'CODE'\n{code}\nCODE"
        script = f"{self.addresses}\n{code}"
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

    def tailor(self, *arguments: str) -> Any:
        """A command's answer, as JSON."""
        command = [".venv/bin/tailor", "--output=json", *arguments]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=True, timeout=120
        )
        return json.loads(done.stdout)

    def fill(self, code: str) -> str:
        """The block with real ids for its placeholders."""
        for placeholder, look_up in PLACEHOLDERS.items():
            if re.search(rf"\b{placeholder}\b", code):
                code = re.sub(rf"\b{placeholder}\b", look_up(self), code)
        return code


def ask_until(ask: Callable[[], T | None], description: str, seconds: float) -> T:
    """Ask until the answer is true. Seldom, because each question starts the command line, which the services' work then waits for."""
    return conftest.ask_until(ask, description, seconds, pause=2.0)


def _newest(reader: Reader, key: str, *command: str) -> Any:
    """The newest of what a command lists; it may take a moment to appear."""
    return ask_until(lambda: next(iter(reader.tailor(*command)[key]), None), f"an entry of {command}", 120)


def _run(reader: Reader) -> str:
    return str(_newest(reader, "run", "list", "run", "list")["run_id"])


def _adapter(reader: Reader) -> str:
    """The newest adapter, once the gate has decided on it."""

    def decided() -> registry_pb2.CatalogueAdapter | None:
        newest = next(list_adapters(reader.registry), None)
        return newest if newest and newest.decision else None

    newest = conftest.ask_until(decided, "a verdict on the newest adapter", 300)
    assert newest.decision == registry_pb2.DECISION_PASSED, newest
    return newest.adapter.digest[:12]


def _draft(reader: Reader) -> str:
    model = SPECIALIST if reader.tailor("adapter", "list")["adapters"] else "base"
    draft = str(reader.tailor("ask", model, "Write a line.", "--max-tokens", "4")["draft_id"])

    def is_catalogued() -> bool:
        return reader.run("sh", f".venv/bin/tailor trace {draft}").returncode == 0

    # A reader who copies the id is slower than this.
    ask_until(is_catalogued, "a draft in the catalogue", 60)
    return draft


def _document(reader: Reader) -> str:
    def passed() -> str | None:
        items = reader.tailor("document", "list")["documents"]
        return next((item["anonymized"]["document_id"] for item in items if item.get("anonymized")), None)

    return ask_until(passed, "an anonymised document", 60)


def _candidate(reader: Reader) -> str:
    """An adapter that passed the gate and serves nobody: a second one is made, promoted and rolled back."""
    first = _adapter(reader)
    (reader.folder / "more").mkdir()
    for path in sorted((SAMPLE / "documents").glob("memo-*.md")):
        shutil.copy(path, reader.folder / "more")
    reader.tailor("publish", "more")

    def second() -> str | None:
        request = registry_pb2.GetSpecialistRequest(name=SPECIALIST)
        serving = reader.registry.GetSpecialist(request, timeout=60).serving.decision.adapter_digest[:12]
        return serving if serving != first else None

    ask_until(lambda: reader.tailor("build", SPECIALIST)["created"], "a second dataset", 60)
    candidate = conftest.ask_until(second, "a second adapter", 240)
    reader.tailor("adapter", "rollback", SPECIALIST, "--wait")
    return candidate


PLACEHOLDERS = {"RUN": _run, "ADAPTER": _adapter, "CANDIDATE": _candidate, "DRAFT": _draft, "DOCUMENT": _document}


def _registry(connection: Connection) -> RegistryServiceStub:
    key = connection.operator_key_file.read_text(encoding="utf-8").strip()
    return RegistryServiceStub(open_channel(connection.service_addresses["registry"], lambda: key))


@pytest.fixture(scope="module")
def reader(store_kind: StoreKind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    folder = tmp_path_factory.mktemp("checkout")
    (folder / ".venv").symlink_to(Path(sys.executable).parents[1])
    (folder / "proto").symlink_to(ROOT / "proto")
    shutil.copytree(
        ROOT / "docs" / "clients",
        folder / "docs" / "clients",
        ignore=shutil.ignore_patterns("node_modules", "gen", "target"),
    )
    (folder / "deploy" / "sample").mkdir(parents=True)
    (folder / "deploy" / "sample" / "specialist.toml").write_text(DEFINITION, encoding="utf-8")
    (folder / "reports").mkdir()
    for path in sorted((SAMPLE / "documents").glob("board-*.md")) + sorted((SAMPLE / "documents").glob("report-*.md")):
        shutil.copy(path, folder / "reports")
    (folder / "memo.md").write_text(
        "# Memo\n\nPlease ask Sarah Jenkins about the daily rest of drivers.\n", encoding="utf-8"
    )
    shutil.copy(ROOT / "services" / "anonymization" / "policy" / "default.toml", folder / "policy.toml")
    texts = [path.read_text(encoding="utf-8") for path in sorted((SAMPLE / "source").rglob("*.md"))]
    base = make_tiny_base(folder / "tiny-base", texts)
    state = folder / ".tailor"
    state.mkdir(mode=0o700)
    (state / "settings.toml").write_text(SETTINGS.format(base=base, recipes=FOLDER), encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TAILOR_", "VIRTUAL_ENV"))}
    environment = kept | QUICK_JAVA | {"PYTHONPATH": str(ROOT)}
    if store_kind.name != "embedded":
        environment |= kcat_environment()
    with store_kind.run(folder / "own") as tables:
        try:
            stack.up(state, own_stores=tables).wait_ready(600)
            command = [str(folder / ".venv" / "bin" / "tailor"), "env"]
            addresses = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
            yield Reader(folder, environment, addresses.stdout, _registry(stack.connection(state)))
        finally:
            stack.down(state)


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and code of a page's blocks."""
    return BLOCK.findall((ROOT / "docs" / page).read_text(encoding="utf-8"))


CASES = [pytest.param(page, place, id=f"{page}-{place}") for page in PAGES for place in range(len(blocks(page)))]


def find_obstacle(page: str, code: str, stores: StoreKind, *, with_clients: bool) -> str | None:
    """Why a block cannot run here, or None."""
    tools = {tool for use, tool in TOOLS.items() if use in code}
    if stores.name != "embedded" and page != OWN_STORES_PAGE:
        return f"{page} does the same on all stores; on the embedded ones `make test-all` runs it"
    if any(use in code for use in CLIENT_TOOLS) and not with_clients:
        return f"{page} builds a client in another language here; `make test-all` does"
    for tool in sorted(tools):
        if shutil.which(tool) is None:
            return f"{page} uses {tool}, which is not installed"
    return None


@pytest.mark.release
@pytest.mark.parametrize(("page", "place"), CASES)
def test_a_block_of_a_page_runs_as_it_stands(
    request: pytest.FixtureRequest, store_kind: StoreKind, pytestconfig: pytest.Config, page: str, place: int
) -> None:
    language, code = blocks(page)[place]
    obstacle = find_obstacle(page, code, store_kind, with_clients=pytestconfig.getoption("--clients"))
    if obstacle:
        pytest.skip(obstacle)
    reader: Reader = request.getfixturevalue("reader")
    tolerated = MAY_FAIL.search(code)
    done = reader.run(language, reader.fill(code))
    if tolerated and done.returncode:
        assert tolerated[1] in done.stderr
    else:
        assert done.returncode == 0, f"{code}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


@pytest.mark.parametrize("page", PAGES)
def test_a_page_names_no_port_of_its_own(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert not re.search(r"localhost:\d+|127\.0\.0\.1:\d+", text)
