"""The process of a run's own vLLM: `python -m services.training.methods.engine_process OPTIONS`, with the options as JSON.

It reads one request per line from standard input and answers each with one line of JSON on standard output; there is no port. It ends when
its input ends, or with the worker that started it.
"""

import ctypes
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from services.training.methods.callers_first import make_way
from services.training.methods.memory import peak_bytes
from tailor.blocked_imports import hide_packages
from tailor.engine.environment import CPU_STEP_TOKENS, adapter_arguments, engine_arguments, prepare_environment
from tailor.hardware import keep_freed_memory
from tailor.logging import describe_error

# Answers to one prompt share the keys and values of its whole blocks.
BLOCK_TOKENS = 32
PR_SET_PDEATHSIG = 1
# The least rank for which vLLM has memory; the others are powers of two.
LEAST_RANK = 8
# vLLM only asks whether this share of the memory is free; `cache_bytes` decides how much it takes.
MEMORY_SHARE = 0.01


@dataclass(frozen=True)
class EngineOptions:
    """How the engine is started. `max_tokens` are those of the longest prompt with its answer, `rows` the answers of a step.

    `adapter` is a folder with an adapter like those of all steps. It has the rank `rank`, and changes modules with the names `targets`,
    such as q_proj. `ends` are the tokens that end an answer.
    `precision` is that of training: bf16, f32, or mixed, which computes in bf16.
    By `compute_lock`, if there is one, it makes way for callers.
    """

    base: str
    adapter: str
    rows: int
    max_tokens: int
    max_new_tokens: int
    rank: int
    targets: Sequence[str]
    temperature: float
    top_p: float
    ends: Sequence[int]
    precision: str
    threads: int
    compute_lock: str = ""

    @property
    def dtype(self) -> str:
        """The type of weights, keys and values, by vLLM's name."""
        return "float32" if self.precision == "f32" else "bfloat16"


class Engine:
    """vLLM with one adapter at a time. Deterministic: a step's answers depend on its request only, not on earlier ones.

    Raises ValueError if the base has no layers for the adapter, and other errors of vLLM.
    """

    def __init__(self, options: EngineOptions) -> None:
        from vllm import LLM

        self._options = options
        self._adapters = 0
        own = {
            "model": options.base,
            "dtype": options.dtype,
            "skip_tokenizer_init": True,
            "generation_config": "vllm",
            "max_model_len": options.max_tokens,
            # On a GPU too: larger steps would take memory from training.
            "max_num_batched_tokens": max(CPU_STEP_TOKENS, options.rows),
            "block_size": BLOCK_TOKENS,
            "kv_cache_memory_bytes": cache_bytes(options),
            "gpu_memory_utilization": MEMORY_SHARE,
            # Of the tokens as they were drawn: after the temperature.
            "logprobs_mode": "processed_logprobs",
        }
        rank = max(LEAST_RANK, 1 << (options.rank - 1).bit_length())
        self._llm: Any = LLM(**engine_arguments(options.rows) | adapter_arguments(options.targets, 1, rank) | own)
        self._load(options.adapter)

    def _load(self, folder: str) -> Any:
        """Replace the adapter by the one in the folder. Ids are never reused, so that no cache can mistake one adapter for another."""
        from vllm.lora.request import LoRARequest

        self._adapters += 1
        request = LoRARequest(str(self._adapters), self._adapters, folder)
        self._llm.llm_engine.add_lora(request)
        return request

    def write(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """One answer per prompt, as token ids with their log-probabilities. The adapter's folder is read again in each step."""
        outputs = self._llm.generate(
            [{"prompt_token_ids": prompt} for prompt in request["prompts"]],
            [self._sampling(request["seed"] + number) for number in range(len(request["prompts"]))],
            use_tqdm=False,
            lora_request=self._load(request["adapter"]),
        )
        answers = [output.outputs[0] for output in outputs]
        return {
            "tokens": [list(answer.token_ids) for answer in answers],
            "log_probabilities": [list(answer.logprobs.logprobs) for answer in answers],
        }

    def _sampling(self, seed: int) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        options = self._options
        return SamplingParams(
            temperature=options.temperature,
            top_p=options.top_p,
            seed=seed,
            max_tokens=options.max_new_tokens,
            stop_token_ids=list(options.ends),
            # Of the drawn token only, in one list.
            logprobs=0,
            flat_logprobs=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )


def cache_bytes(options: EngineOptions) -> int:
    """Bytes of the keys and values of a step's answers, all of them at full length, and of one block that vLLM keeps empty."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(options.base, local_files_only=True, trust_remote_code=False).get_text_config()
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    token = config.num_hidden_layers * 2 * heads * width * (4 if options.dtype == "float32" else 2)
    blocks = options.rows * -(-options.max_tokens // BLOCK_TOKENS) + 1
    return int(blocks * BLOCK_TOKENS * token)


def main() -> None:
    """Start the engine, report it as ready, and answer."""
    if sys.platform == "linux":
        # With a worker that is killed.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # What libraries print must not get between the answers.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    options = EngineOptions(**json.loads(sys.argv[1]))
    prepare_environment(0, options.threads)
    # It would override the exact size.
    del os.environ["VLLM_CPU_KVCACHE_SPACE"]
    # Serving ends answers with NaN; here nobody counts them, which takes 5 % of a step of 64 rows.
    del os.environ["VLLM_COMPUTE_NANS_IN_LOGITS"]
    hide_packages("sklearn", "scipy", "bitsandbytes")
    try:
        engine = Engine(options)
        make_way(Path(options.compute_lock) if options.compute_lock else None)
        # Only now: what loading needed is given back.
        keep_freed_memory()
    except Exception as error:  # noqa: BLE001 - the worker logs it; it is about the base and the machine, since no prompt has arrived
        _send(channel, {"error": describe_error(error, with_message=True)})
        return
    _send(channel, {"ready": True})
    try:
        for line in iter(sys.stdin.readline, ""):
            _send(channel, engine.write(json.loads(line)))
    except Exception as error:  # noqa: BLE001 - the worker logs it
        _send(channel, {"error": describe_error(error)})


def _send(channel: TextIO, message: Mapping[str, Any]) -> None:
    channel.write(json.dumps({**message, "peak_bytes": peak_bytes()}) + "\n")
    channel.flush()


if __name__ == "__main__":
    main()
