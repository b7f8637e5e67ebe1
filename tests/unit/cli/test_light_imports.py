"""Light code stays light: the client, settings, contracts and the command line import nothing heavy."""

import os
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


CONNECT = """\
import grpc
try:
    grpc.channel_ready_future(grpc.insecure_channel("127.0.0.1:1")).result(timeout=1)
except grpc.FutureTimeoutError:
    pass
"""


def test_a_command_shows_no_log_lines_of_grpc() -> None:
    """Traces make its core write lines that a server's GOAWAY makes it write otherwise."""
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"}
    lines = [
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            env=environment | {"GRPC_TRACE": "channel,http"},
        ).stderr
        for code in (CONNECT, f"import tailor.cli.main\n{CONNECT}")
    ]
    assert lines[0] and not lines[1]
