"""The base loads and answers in vLLM on a GPU, with adapters enabled."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gpu.conftest import Figures

pytestmark = pytest.mark.gpu

# In a separate process, because vLLM holds the GPU's memory until its process ends.
SCRIPT = """
import sys, time
from vllm import LLM, SamplingParams
started = time.monotonic()
model = LLM(sys.argv[1], dtype="bfloat16", enable_lora=True, max_lora_rank=16, max_model_len=1024, gpu_memory_utilization=0.5)
loaded = time.monotonic() - started
answers = model.generate(["The report"] * 16, SamplingParams(max_tokens=64, temperature=0.0, ignore_eos=True))
tokens = sum(len(answer.outputs[0].token_ids) for answer in answers)
print(f"FIGURE loaded in {loaded:.0f} s, {tokens / (time.monotonic() - started - loaded):,.0f} tokens/s", flush=True)
"""


def test_base_loads_and_answers_in_vllm(base: Path, figures: Figures) -> None:
    try:
        version = importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("vllm for GPUs is not installed")
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(base)], capture_output=True, text=True, timeout=1000, check=False
    )
    assert process.returncode == 0, process.stderr[-2000:]
    (figure,) = [line.removeprefix("FIGURE ") for line in process.stdout.splitlines() if line.startswith("FIGURE ")]
    figures.add(f"vLLM {version}", figure)
