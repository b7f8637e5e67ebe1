"""A model that is sharded over two processes learns the same, and is gathered again."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.models import make_tiny_base

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROOT = Path(__file__).parents[2]


def test_sharded_model_learns_the_same_and_is_gathered_again(tmp_path: Path) -> None:
    base = make_tiny_base(tmp_path / "base", ["a ledger of obligations"], vocabulary=400)
    torchrun = ["-m", "services.training.launchers.torchrun", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [sys.executable, *torchrun, "tests/integration/sharded_step.py", str(base), str(tmp_path / "found.json")],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "CUDA_VISIBLE_DEVICES": "",
        },
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["losses"] == pytest.approx(found["expected"], abs=1e-5)
    assert found["losses"][-1] != pytest.approx(found["losses"][0], abs=1e-3)
    assert found["difference"] < 1e-5
    # Each process holds half of the weights, except for tensors that cannot be split evenly.
    assert 0.45 < found["share"] < 0.6
