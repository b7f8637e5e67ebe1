"""The base loads and answers in vLLM on a GPU, with adapters enabled, and writes rollouts there."""

import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from services.training.methods.engine import EngineProcess
from tests.gpu.conftest import Figures
from tests.integration.test_training_engine import PROMPTS, adapted, largest_difference, options

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


def test_engine_writes_rollouts_with_the_adapter_of_each_step(base: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vllm for GPUs is not installed")
    models = [adapted(base, seed) for seed in (1, 2)]
    models[1].save_pretrained(tmp_path)
    engine = EngineProcess.start(options(base, tmp_path, "bf16"))
    try:
        engine.wait_until_ready()
        for model, other in (models, models[::-1]):
            model.save_pretrained(tmp_path)
            written = engine.write(PROMPTS, tmp_path, seed=5)
            assert largest_difference(model, PROMPTS, written) < largest_difference(other, PROMPTS, written) / 5
        assert engine.peak_bytes > 0
    finally:
        engine.close()
