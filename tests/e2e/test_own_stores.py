"""docs/how-to/own-stores.md as it stands: a stack on one's own Kafka and object store, named by options, and documents published to it."""

import shutil
from pathlib import Path

import pytest

from services.training.recipe import FOLDER
from tailor.local import stack
from tests.e2e.conftest import SETTINGS
from tests.models import make_tiny_base
from tests.real.kinds import StoreKind
from tests.real.page import blocks, checkout, fill, let_administrator_use_scram, run

pytestmark = pytest.mark.e2e


def test_the_pages_commands_start_a_stack_on_own_stores_and_publish_to_it(
    store_kind: StoreKind, tmp_path: Path
) -> None:
    if store_kind.name == "embedded":
        pytest.skip("needs Apache Kafka and MinIO; `make test-real` runs these")
    folder = checkout(tmp_path / "checkout")
    state = folder / ".tailor"
    state.mkdir(mode=0o700)
    base, recipes = make_tiny_base(tmp_path / "base", ["Write it."]), shutil.copytree(FOLDER, tmp_path / "recipes")
    (state / "settings.toml").write_text(SETTINGS.format(base=base, recipes=recipes), encoding="utf-8")
    start, publish = (code for code in blocks("sh") if "tailor up" in code or "tailor publish" in code)
    with store_kind.run(tmp_path / "own") as tables:
        let_administrator_use_scram(tables)
        try:
            started = run(folder, fill(start, tables).replace("tailor status", "tailor --output json status"), 400)
            assert started.returncode == 0, started.stderr
            assert started.stdout.count("your own") >= 2
            assert shutil.which("kcat"), "install kcat: apt-get install kcat"
            published = run(folder, publish, 200)
            assert published.returncode == 0, published.stderr
            assert "1 published (1 to Kafka" in published.stdout
            assert '"topic": "document.anonymized.v1"' in published.stdout
        finally:
            stack.down(state)
