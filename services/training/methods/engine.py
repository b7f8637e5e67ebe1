"""Rollouts from the engine that serves: vLLM in a child process of the worker, reached through pipes.

Its answers are those of other kernels than the training model's, so each counts with the ratio of the two probabilities, at most
`MAX_WEIGHT`: truncated importance sampling (Ionides 2008; for rollouts Yao et al. 2025, https://fengyao.notion.site/off-policy-rl), per
sequence, with trl's bound.
"""

import importlib.util
import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any, cast

from services.training.methods.answers import Prompt, end_tokens
from services.training.methods.engine_process import EngineOptions
from services.training.ports import RolloutAnswer, RolloutEngine
from services.training.recipe import GENERATING, Recipe
from tailor.errors import Reason, Unavailable
from tailor.logging import describe_exit, get_logger

log = get_logger(__name__)

MODULE = "services.training.methods.engine_process"
MAX_WEIGHT = 3.0
# A busy machine takes minutes; only a hang takes longer.
START_SECONDS, STEP_SECONDS, STOP_SECONDS = 900.0, 3600.0, 10.0
# Lets glibc (2.35 and later) ask for pages of 2 MiB: a step of 16 rows, which reads all weights once, takes a tenth less.
LARGE_PAGES = "glibc.malloc.hugetlb=1"
# The sizes of attention heads that vLLM has kernels for on CPU.
HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)

# Starts an engine; None if `generate` should write instead.
StartEngine = Callable[[EngineOptions], RolloutEngine | None]


def without_engine(_: EngineOptions) -> None:
    """Start nothing: `generate` writes the answers."""


def start_engine(options: EngineOptions, compute_lock: Path | None = None) -> RolloutEngine | None:
    """Start vLLM and wait until it is ready, which takes half a minute. None, with a warning in the log, if it does not start.

    By the compute lock it makes way for callers.
    """
    engine = EngineProcess.start(replace(options, compute_lock=str(compute_lock or "")))
    try:
        engine.wait_until_ready()
    except Unavailable as error:
        engine.close()
        log.warning("the engine does not start; generate writes the rollouts", reason=error.reason, error=error.message)
        return None
    return engine


def reason_against(recipe: Recipe, base: Path, *, gpu: bool) -> str:
    """Why `generate` writes the rollouts of a recipe here, as one sentence; empty if the engine does.

    `base` is a folder with a config.json.
    """
    if recipe.adapter.kind != "lora" or recipe.adapter.use_dora:
        return "The engine adapts its base by LoRA only."
    if importlib.util.find_spec("vllm") is None:
        return "vLLM is not installed."
    if not gpu and _head_size(base) not in HEAD_SIZES:
        return "vLLM has no attention for the base's head size."
    return ""


def uses_engine(recipe: Recipe, base: Path, *, gpu: bool) -> bool:
    """True if the rollouts of the recipe are written by the engine here."""
    return recipe.method in GENERATING and not reason_against(recipe, base, gpu=gpu)


def _head_size(base: Path) -> int:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(base, local_files_only=True, trust_remote_code=False).get_text_config()
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


class EngineProcess(RolloutEngine):
    """An engine in a child process, which `command` starts (`engine_process.py`). Not thread-safe."""

    def __init__(self, command: Sequence[str]) -> None:
        self._peak = 0
        self._process = subprocess.Popen(
            command,
            env={"GLIBC_TUNABLES": LARGE_PAGES, **os.environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # vLLM's own messages may quote a request.
            stderr=subprocess.DEVNULL,
        )
        self._requests = cast("IO[bytes]", self._process.stdin)
        self._answers = cast("IO[bytes]", self._process.stdout)

    @classmethod
    def start(cls, options: EngineOptions) -> "EngineProcess":
        """Start vLLM, and return before it is ready."""
        return cls([sys.executable, "-m", MODULE, json.dumps(asdict(options))])

    @property
    def process_id(self) -> int:
        """The number of its process."""
        return self._process.pid

    def wait_until_ready(self) -> None:
        """Block until the engine has loaded its base. Raises Unavailable (ENGINE_FAILED)."""
        self._receive(START_SECONDS)

    def write(self, prompts: Sequence[Sequence[int]], adapter: Path, seed: int) -> list[RolloutAnswer]:
        request = {"prompts": [list(prompt) for prompt in prompts], "adapter": str(adapter), "seed": seed}
        self._send(json.dumps(request).encode() + b"\n")
        written = self._receive(STEP_SECONDS)
        return [
            RolloutAnswer(tokens, likely)
            for tokens, likely in zip(written["tokens"], written["log_probabilities"], strict=True)
        ]

    @property
    def peak_bytes(self) -> int:
        return self._peak

    def close(self) -> None:
        with suppress(OSError):
            self._requests.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._answers.close()

    def _send(self, line: bytes) -> None:
        try:
            self._requests.write(line)
            self._requests.flush()
        except (OSError, ValueError):  # it ended, or was closed
            raise self._failure() from None

    def _receive(self, seconds: float) -> Mapping[str, Any]:
        readable, _, _ = select.select([self._answers], [], [], seconds)
        line = self._answers.readline() if readable else b""
        message: dict[str, Any] = json.loads(line) if line.endswith(b"\n") else {}
        if not message or "error" in message:
            raise self._failure(message.get("error", "" if readable else f"it has not answered for {seconds:.0f} s"))
        self._peak = message["peak_bytes"]
        return message

    def _failure(self, cause: str = "") -> Unavailable:
        if not cause:
            try:
                cause = describe_exit(self._process.wait(STOP_SECONDS))
            except subprocess.TimeoutExpired:
                cause = "its answer is incomplete"
        log.warning("engine failed", error=cause)
        return Unavailable(
            Reason.ENGINE_FAILED,
            f"The engine that writes the rollouts failed: {cause}. The run goes on from its last checkpoint. If it fails again, set "
            "TAILOR_ROLLOUT_ENGINE=generate.",
        )


def options_of(
    recipe: Recipe, base: Path, policy: Any, tokenizer: Any, prompts: Sequence[Prompt], *, adapter: Path
) -> EngineOptions:
    """How to start the engine for the rollouts of a recipe on these prompts. Its adapter is in the folder `adapter` (`save_adapter`)."""
    rollout = recipe.rollout
    return EngineOptions(
        base=str(base),
        adapter=str(adapter),
        rows=rollout.prompts * rollout.answers,
        max_tokens=max(len(prompt.tokens) for prompt in prompts) + rollout.max_new_tokens,
        max_new_tokens=rollout.max_new_tokens,
        rank=recipe.adapter.r,
        targets=sorted(policy.peft_config["default"].target_modules),
        temperature=rollout.temperature,
        top_p=rollout.top_p,
        ends=end_tokens(policy, tokenizer),
        precision=recipe.precision,
        threads=count_threads(),
    )


def count_threads() -> int:
    """Threads of an engine: those of this process, which waits while the engine writes."""
    import torch

    return min(int(torch.get_num_threads()), len(os.sched_getaffinity(0)))


def save_adapter(policy: Any, folder: Path) -> None:
    """Write the policy's adapter as it is now, in the precision in which it is trained."""
    policy.save_pretrained(folder, selected_adapters=["default"], save_embedding_layers=False)


def weigh(ours: Any, engines: Any, mask: Any) -> Any:
    """The weight of each answer: how likely it is under the training model compared with the engine, at most MAX_WEIGHT.

    ours (answers,) and engines (answers,) are log-probabilities of whole answers, mask (answers, tokens) is 1 where a token counts. An
    answer that does not count has 0 in `ours`, and the weight 1.
    """
    counts = mask.any(dim=1)
    return (ours - engines.to(ours.device)).where(counts, 0.0).exp().clamp(max=MAX_WEIGHT)
