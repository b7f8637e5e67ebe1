"""How vLLM runs in every process of ours: inference that serves, and training that writes rollouts. Imports nothing heavy."""

import os
from collections.abc import Collection
from typing import Any

# vLLM imports it by name, on a CPU only.
WORKER = "tailor.engine.worker.TailorWorker"
# Where the worker finds the path of the compute lock, among vLLM's additional configuration.
COMPUTE_LOCK = "compute_lock"
# Prompt tokens per step on CPU. The engine tries a full step before it is ready; at 2,048 tokens that took 12 s longer.
CPU_STEP_TOKENS = 512


def engine_arguments(rows: int) -> dict[str, Any]:
    """Arguments of vLLM for a base of which at most `rows` answers are written at a time. Imports torch."""
    import torch

    shared = {
        "max_num_seqs": rows,
        "enforce_eager": True,
        "disable_log_stats": True,
        "trust_remote_code": False,
        "load_format": "safetensors",
    }
    if torch.cuda.is_available():
        return shared
    return shared | {
        "worker_cls": WORKER,
        "distributed_executor_backend": "uni",
        "max_num_batched_tokens": max(CPU_STEP_TOKENS, rows),
    }


def adapter_arguments(targets: Collection[str], slots: int, max_rank: int) -> dict[str, Any]:
    """Arguments of vLLM for at most `slots` adapters at once, of layers whose paths end with the targets; none without targets."""
    if not targets:
        return {}
    return {
        "enable_lora": True,
        "max_loras": slots,
        "max_lora_rank": max_rank,
        "lora_target_modules": sorted({target.rpartition(".")[2] for target in targets}),
    }


def prepare_environment(kv_cache_gib: int, threads: int) -> None:
    """Set the environment that vLLM reads. Call it once per process, before vLLM is imported."""
    os.environ.update(
        {
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_DO_NOT_TRACK": "1",
            "DO_NOT_TRACK": "1",
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
            "VLLM_LOGGING_LEVEL": "ERROR",
            "VLLM_CONFIGURE_LOGGING": "1",
            "VLLM_COMPUTE_NANS_IN_LOGITS": "1",
            "VLLM_CPU_KVCACHE_SPACE": str(kv_cache_gib),
            "OMP_NUM_THREADS": str(threads),
            # A thread bound to a core that another process uses makes all threads wait: a third of the tokens/s, measured.
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            # It would compile only the ranks of prompt log-probabilities, for 15 s at the first score.
            "TORCHDYNAMO_DISABLE": "1",
            # On a GPU it would be compiled at the start by nvcc, which no image has.
            "VLLM_USE_FLASHINFER_SAMPLER": "0",
            # One process fewer: the worker runs in this process. It starts sooner, and nothing spins while idle.
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            # torch's process groups open sockets even for one process; they must not be reachable from other machines.
            "VLLM_HOST_IP": "127.0.0.1",
            "GLOO_SOCKET_IFNAME": "lo",
        }
    )
