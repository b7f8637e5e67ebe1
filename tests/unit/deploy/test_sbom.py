"""The bill of materials of a lock is valid CycloneDX 1.6 and has every package with its hashes."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.install import REQUIREMENTS

pytestmark = pytest.mark.release


@pytest.mark.parametrize("name", ["client", "torch-cpu"])
def test_the_bill_of_a_lock_has_every_package_with_its_hashes(name: str) -> None:
    lock = REQUIREMENTS / f"{name}.txt"
    program = str(Path(sys.executable).with_name("cyclonedx-py"))
    command = [program, "requirements", "--spec-version", "1.6", "--output-reproducible", "--validate", str(lock)]
    bills = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert bills[0] == bills[1]
    components = json.loads(bills[0])["components"]
    text = lock.read_text(encoding="utf-8")
    assert {f"{part['name']}=={part['version']}" for part in components} == set(
        re.findall(r"^[a-z]\S*==\S+", text, re.MULTILINE)
    )
    hashes = {
        entry["content"] for part in components for file in part["externalReferences"] for entry in file["hashes"]
    }
    assert hashes == set(re.findall(r"sha256:(\w+)", text))
