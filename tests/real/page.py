"""The commands of docs/how-to/own-stores.md, with a test's own addresses and passwords in the examples' place."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from kafka.admin import KafkaAdminClient, ScramMechanism, UserScramCredentialUpsertion

from tests.real.fetch import fetch, folder

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "own-stores.md"
BLOCK = re.compile(r"^```(sh|toml)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(language: str) -> list[str]:
    """The page's blocks of a language, in order."""
    return [code for kind, code in BLOCK.findall(PAGE.read_text(encoding="utf-8")) if kind == language]


def fill(code: str, tables: Mapping[str, Mapping[str, Any]]) -> str:
    """A block for these stores, which have one broker and no TLS."""
    kafka, s3 = tables["kafka"], tables["s3"]
    changes = {
        "kafka.example:9093 --kafka-admin admin": (
            f"{kafka['bootstrap_servers']} --kafka-admin admin --kafka-protocol SASL_PLAINTEXT --kafka-replicas 1"
        ),
        " --s3-tls": "",
        "TAILOR_S3_SECURE=true": "TAILOR_S3_SECURE=false",
        "SASL_SSL": "SASL_PLAINTEXT",
        "kafka.example:9093": kafka["bootstrap_servers"],
        "objects.example:9000": s3["endpoint"],
        "minioadmin": s3["admin_access_key"],
        "KAFKA_PASSWORD": kafka["admin_password"],
        "S3_SECRET": s3["admin_secret_key"],
    }
    for example, real in changes.items():
        code = code.replace(example, str(real))
    return code


def let_administrator_use_scram(tables: Mapping[str, Mapping[str, Any]]) -> None:
    """Compose's administrator signs in by PLAIN only; that of the page by SCRAM."""
    kafka = tables["kafka"]
    arguments: dict[str, Any] = {
        "bootstrap_servers": kafka["bootstrap_servers"],
        "security_protocol": kafka["security_protocol"],
        "sasl_mechanism": kafka["admin_mechanism"],
        "sasl_plain_username": kafka["admin_username"],
        "sasl_plain_password": kafka["admin_password"],
    }
    with closing(KafkaAdminClient(**arguments)) as admin:
        upsertion = UserScramCredentialUpsertion("admin", ScramMechanism.SCRAM_SHA_512, kafka["admin_password"])
        assert admin.alter_user_scram_credentials([upsertion]) == {"admin": None}


def kcat_environment() -> dict[str, str]:
    """What lets an installed kcat sign in by SCRAM at Apache Kafka 4: a librdkafka of 2.6.1 or newer, which Debian 12 does not have."""
    return {"LD_LIBRARY_PATH": str(fetch(folder()).librdkafka)}


def checkout(root: Path) -> Path:
    """A folder in which the page's commands find `.venv/bin` and the checkout's programs."""
    root.mkdir(parents=True, exist_ok=True)
    for name in ("deploy", "tailor", "services", "proto"):
        (root / name).symlink_to(ROOT / name)
    (root / ".venv" / "bin").mkdir(parents=True)
    for name, module in (("tailor", "-m tailor.cli.main"), ("python", "")):
        script = root / ".venv" / "bin" / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {module} "$@"\n', encoding="utf-8")
        script.chmod(0o755)
    return root


def run(root: Path, code: str, seconds: float, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a block in a new shell."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    environment |= {"PYTHONPATH": str(ROOT)} | kcat_environment() | variables
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )
