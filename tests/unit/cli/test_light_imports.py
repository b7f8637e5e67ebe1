"""Light code stays light: the client, settings, contracts and the command line import nothing heavy."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
HEAVY = ("torch", "transformers", "presidio_analyzer", "spacy", "vllm", "pyarrow", "sqlalchemy", "fastapi", "minio")
# Packages that the base install does not have.
SERVICE_ONLY = ("jwt", "cryptography", "prometheus_client", "psycopg", "alembic")
CONTRACTS = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in (ROOT / "tailor" / "api").rglob("*_pb2*.py")
)


@pytest.mark.parametrize(
    "modules",
    [["tailor.client"], ["tailor.settings"], ["tailor.cli.main", "tailor.cli.reader", "tailor.demo"], CONTRACTS],
    ids=["client", "settings", "command line", "contracts"],
)
def test_light_imports(modules: list[str]) -> None:
    code = (
        f"import importlib, sys\nfor name in {modules!r}: importlib.import_module(name)\n"
        f"print([name for name in {HEAVY + SERVICE_ONLY!r} if name in sys.modules])"
    )

    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert loaded.stdout.strip() == "[]"


def test_the_client_imports_neither_kafka_nor_the_command_line() -> None:
    code = "import sys, tailor.client; print([n for n in ('kafka', 'typer', 'rich', 'yaml', 'structlog') if n in sys.modules])"

    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert loaded.stdout.strip() == "[]"


def test_the_command_line_imports_kafka_only_for_the_commands_that_need_it() -> None:
    code = "import sys, tailor.cli.main; print('kafka' in sys.modules)"

    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert loaded.stdout.strip() == "False"
