"""vLLM's CPU worker with our own LoRA path. vLLM imports it by name.

vLLM 0.32's CPU path copies an adapter's weights once per token, which makes an adapter four times slower than its base. It also
reads index -1 (no adapter) as the last slot, which lets an adapter leak into the base's answers in a mixed batch. This worker
groups the tokens of a step by slot and multiplies each group once, or all rows at once if the groups are small (`lora_rows.py`).
"""

import ctypes
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.platforms import current_platform
from vllm.v1.worker.cpu_worker import CPUWorker

from tailor.compute_lock import awaiting_turns
from tailor.engine.environment import COMPUTE_LOCK
from tailor.engine.held_generators import hold_generators
from tailor.engine.lora_rows import plan
from tailor.engine.overflow import clear_new_blocks

PR_SET_PDEATHSIG = 1
WRAPPER = f"{__name__}.GroupedLora"


class GroupedLora(PunicaWrapperCPU):  # type: ignore[misc]
    """Applies adapters to linear layers; embeddings and the output layer are never adapted (see inference's `adapters/verify.py`)."""

    def update_metadata(
        self, mapping: Any, lora_index_to_id: list[int | None], max_loras: int, vocab_size: int, **kwargs: Any
    ) -> None:
        """Store a step's mapping of tokens to slots."""
        super().update_metadata(mapping, lora_index_to_id, max_loras, vocab_size, **kwargs)
        self._add = plan(self.token_lora_indices)

    def add_lora_linear(  # noqa: PLR0917 - vLLM's signature
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: tuple[torch.Tensor, ...],
        lora_b_stacked: tuple[torch.Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        **kwargs: Any,
    ) -> None:
        """Add the adapters to a layer's output in place, slice by slice (query, key, value; gate, up).

        Shapes: y (..., sum of output_slices), x (..., in), each a (slots, 1, rank, in), each b (slots, 1, out, rank).
        """
        del kwargs
        x = x.view(-1, x.shape[-1])
        y = y.view(-1, y.shape[-1])
        offset = 0
        for a, b, width in zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True):
            self._add(y[:, offset : offset + width], x, a, b, scale)
            offset += width


def die_with_parent() -> None:
    """Ask Linux to end this process when the thread that started it ends. Otherwise vLLM's core outlives a killed service."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class TailorWorker(CPUWorker):  # type: ignore[misc]
    """A CPU worker that applies adapters through GroupedLora. It runs in the process of vLLM's scheduler.

    It lets training have its turn before each step that gives nobody a first token.
    """

    def load_model(self, **kwargs: Any) -> None:
        """Load the base with its LoRA layers."""
        die_with_parent()
        clear_new_blocks()
        type(current_platform).get_punica_wrapper = classmethod(lambda _: WRAPPER)
        path = self.vllm_config.additional_config.get(COMPUTE_LOCK)
        self._await_turn = awaiting_turns(Path(path) if path else None)
        super().load_model(**kwargs)

    def execute_model(self, scheduler_output: Any) -> Any:
        """Compute a step. One that reads no prompt has one token of each request."""
        if set(scheduler_output.num_scheduled_tokens.values()) == {1}:
            self._await_turn()
        return super().execute_model(scheduler_output)

    def sample_tokens(self, grammar_output: Any) -> Any:
        """Draw a step's tokens."""
        with hold_generators(self.model_runner):
            return super().sample_tokens(grammar_output)
