"""`tailor demo` as a newcomer runs it, with a tiny base and without a network; and on one's own stores, which are on the network."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench.base_moves import WHY, SteadyCallers, another_deployment, find_base, move_and_back, run_tailor
from tailor.api.training.v1.training_pb2 import CreateRunRequest, GetRunRequest
from tailor.cli.connections import Connections, Endpoints
from tailor.cli.progress import ProgressReporter, wait_for
from tailor.demo import evaluate, find_adapter, read_sample, run_demo, wait_until_served
from tailor.local import stack
from tests.e2e.conftest import SAMPLE, SETTINGS, ask_until, copy_recipes
from tests.models import make_tiny_base
from tests.real.kinds import StoreKind, Tables

pytestmark = [pytest.mark.e2e, pytest.mark.release]

SPECIALIST = """\
name = "tiny-reports"
base = "tiny"
recipe = "tiny"
house_terms = ["control envelope", "friction ledger"]
[sampling]
max_tokens = 24
# Half of the few documents.
[rows]
held_out_percent = 40
[evaluation]
max_rows = 12
max_answers = 6
max_suite_items = 4
[gate]
min_rows = 1
beat = ["base"]
[gate.primary]
metric = "log_likelihood"
min_gain = {gain}
"""


def _cut_off(stores: StoreKind) -> list[str]:
    """The prefix that runs a command without a network, if the stores are embedded. Skips the test if the machine does not allow that."""
    if stores.name != "embedded":
        return []
    command = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--net", "--map-root-user"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*command, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("this machine does not allow a separate network namespace (unshare --net)")
    return [*command, sys.executable, str(Path(__file__).with_name("offline.py"))]


def _sample(directory: Path, gain: float) -> Path:
    sample = directory / "sample"
    (sample / "documents").mkdir(parents=True)
    index = json.loads((SAMPLE / "documents.json").read_text(encoding="utf-8"))
    names = [name for name in index if name.startswith(("board-", "note-"))] + ["corrupt-scan.pdf", "empty.txt"]
    for name in names:
        shutil.copy(SAMPLE / "documents" / name, sample / "documents" / name)
    (sample / "documents.json").write_text(json.dumps({name: index[name] for name in names}), encoding="utf-8")
    shutil.copy(SAMPLE / "questions.json", sample)
    (sample / "specialist.toml").write_text(SPECIALIST.format(gain=gain), encoding="utf-8")
    return sample


def _state(directory: Path, own_stores: Tables) -> Path:
    texts = [path.read_text(encoding="utf-8") for path in sorted((SAMPLE / "source").rglob("*.md"))]
    base = make_tiny_base(directory / "tiny-base", texts)
    state = directory / "state"
    state.mkdir(mode=0o700)
    recipes = copy_recipes(directory / "recipes")
    settings = SETTINGS.format(base=base, recipes=recipes)
    for name, table in own_stores.items():
        # A JSON string is a TOML string, too.
        settings += f"[stores.{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
    (state / "settings.toml").write_text(settings, encoding="utf-8")
    return state


def _demo(prefix: list[str], state: Path, sample: Path) -> tuple[int, str, dict[str, Any]]:
    status, output = _tailor(prefix, "--state-dir", str(state), "demo", "--sample", str(sample))
    file = state / "demo.json"
    return status, output, json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def _tailor(prefix: list[str], *arguments: str) -> tuple[int, str]:
    command = [*prefix, sys.executable, "-m", "tailor.cli.main", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=800, check=False, cwd=SAMPLE.parents[1])
    return result.returncode, result.stdout + result.stderr


def _printed_commands(output: str) -> dict[str, list[str]]:
    """The arguments of the commands that a refused demo prints, by their first words. The override comes last."""
    lines = [shlex.split(line) for line in output.splitlines() if line.startswith("  tailor ")]
    assert lines, output
    names = (" ".join(word for word in line[1:3] if not word.startswith("-")) for line in lines)
    return {"override" if "--override" in line else name: line[1:] for name, line in zip(names, lines, strict=True)}


def test_a_demo_without_a_network_is_refused_then_promoted_by_its_own_commands_and_repeats_nothing(
    store_kind: StoreKind, tmp_path: Path
) -> None:
    with store_kind.run(tmp_path / "own") as tables:
        _check_demo(_cut_off(store_kind), _state(tmp_path, tables), _sample(tmp_path, 1e9))


def _check_demo(prefix: list[str], state: Path, sample: Path) -> None:
    status, output, first = _demo(prefix, state, sample)
    assert status == 1, output
    assert "log_likelihood gains" in output
    assert "GATE_NOT_MET" in output
    assert (first["promoted"], first["verdict"]["decision"]) == (False, "refused")
    rejected = first["documents_rejected"]
    assert first["documents_published"] == first["documents_anonymized"] + sum(rejected.values())
    assert rejected == {"CORRUPT": 1, "EMPTY": 1}
    assert first["run"]["steps"] > 0
    assert first["new"] == [f"{first['documents_published']} documents", "the dataset", "the adapter"]
    commands = _printed_commands(output)
    (sample / "specialist.toml").write_text(SPECIALIST.format(gain=0.01), encoding="utf-8")
    try:
        for name in ("up", "adapter list", "adapter show", "specialist update", "adapter promote"):
            status, output = _tailor([], *commands[name])
            assert status == 0, output
        assert "is served by" in output
        # On the running stack.
        status, output, second = _demo([], state, sample)
    finally:
        _tailor([], "--state-dir", str(state), "down")
    assert status == 0, output
    assert "nothing is new" in output
    assert (second["run"], second["adapter"], second["dataset"]) == (first["run"], first["adapter"], first["dataset"])
    assert (second["documents_published"], second["documents_unchanged"]) == (0, first["documents_published"])
    assert second["new"] == []
    assert second["promoted"] is True
    (likelihood,) = (item for item in second["evaluation"]["metrics"] if item["metric"] == "log_likelihood")
    assert likelihood["gains"]["base"]["low"] > 0
    assert len(second["answers"]) == 3
    assert all(answer["draft_id"].startswith("drf_") for answer in second["answers"])
    assert all(answer["examples"] and answer["few_shot"] for answer in second["answers"])


@pytest.fixture(scope="module")
def demo(store_kind: StoreKind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """A state directory, and a sample whose gate asks for no gain."""
    folder = tmp_path_factory.mktemp("demo")
    with store_kind.run(folder / "own") as tables:
        state = _state(folder, tables)
        tiny = (folder / "recipes" / "tiny.toml").read_text(encoding="utf-8")
        dora = tiny.replace("[adapter]", "[adapter]\nuse_dora = true")
        (folder / "recipes" / "tiny-dora.toml").write_text(dora, encoding="utf-8")
        try:
            yield state, _sample(folder, -1e9)
        finally:
            stack.down(state)


def test_a_specialist_moves_to_another_base_and_back_while_callers_ask(demo: tuple[Path, Path], tmp_path: Path) -> None:
    texts = [path.read_text(encoding="utf-8") for path in sorted((SAMPLE / "source").rglob("*.md"))]
    other = make_tiny_base(tmp_path / "other-base", texts, vocabulary=900, seed=1)
    figures = move_and_back(*demo, "other", f"path:{other}")
    assert list(figures["moves"]) == ["other", "tiny"]
    assert figures["moves_failures"] == []
    assert set(figures["moves_answers"]) == {"tiny", "other"}


def test_a_dora_result_is_evaluated_promoted_and_rolled_back_while_callers_ask(demo: tuple[Path, Path]) -> None:
    state, sample, now = demo[0], read_sample(demo[1]), print
    name, rows = sample.definition.name, run_demo(state, sample, ProgressReporter(Console()))["dataset"]["digest"]
    with closing(Connections(Endpoints(state))) as connections, connections.client() as client:
        base = {item.name: item.provenance.base for item in client.specialists()}[name]
        training = connections.training
        request = CreateRunRequest(specialist=name, dataset_digest=rows, base=base, recipe="tiny-dora", request_id="d")
        run = GetRunRequest(run_id=training.CreateRun(request).run.run_id)
        digest = ask_until(lambda: training.GetRun(run).run.adapter_digest, "no adapter")
        run_tailor(state, "model", "add", "merged", f"adapter:{digest}")
        with another_deployment(state, "merged"), SteadyCallers(connections.channel("inference"), name) as callers:
            wait_for(lambda: find_base(client, "merged"), now)
            callers.wait_for_answer(base, now)
            run_tailor(state, "adapter", "evaluate", digest)
            trained = ask_until(lambda: find_adapter(connections, digest), "no adapter").adapter
            if not evaluate(connections, trained, now).serving:
                run_tailor(state, "adapter", "promote", name, digest, "--override", "--reason", WHY)
            wait_until_served(connections, client, trained, now)
            callers.wait_for_answer("merged", now)
            run_tailor(state, "adapter", "rollback", name, "--wait")
            callers.wait_for_answer(base, now)
    assert callers.failures == []
