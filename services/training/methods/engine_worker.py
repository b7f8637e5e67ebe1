"""vLLM's CPU worker that writes rollouts: every row uses the policy's adapter. vLLM imports it by name.

Serving's path for adapters looks up each row's adapter, and multiplies with each part of a layer (`tailor/engine/worker.py`). Here a layer
has two products, whose matrices are packed once per step. As in serving, the adapter is not merged into the base's weights, where bf16
would lose small updates.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from vllm import _custom_ops as custom_ops
from vllm import ir
from vllm.lora.peft_helper import PEFTHelper
from vllm.lora.utils import parse_fine_tuned_lora_name
from vllm.v1.sample import sampler
from vllm.v1.worker.cpu_worker import CPUWorker

from services.training.methods.engine_layers import adapt
from tailor.engine.held_generators import hold_generators
from tailor.engine.overflow import clear_new_blocks

# Numbers of rows for which oneDNN keeps its plan of a product, as vLLM has it for the base's.
PREPARED_SIZES = 32
# vLLM has kernels for them on a CPU, but declares them for GPUs only. torch's operations take 8 % of a step of 16 rows more.
NORMS = ("rms_norm", "fused_add_rms_norm")


class RolloutWorker(CPUWorker):  # type: ignore[misc]
    """A CPU worker with one adapter, of the rank and for the layers that vLLM's additional configuration names."""

    def __init__(self, vllm_config: Any, **kwargs: Any) -> None:
        for norm in NORMS:
            getattr(ir.ops, norm).impls["vllm_c"].supported = True
            setattr(vllm_config.kernel_config.ir_op_priority, norm, ["vllm_c", "native"])
        super().__init__(vllm_config=vllm_config, **kwargs)

    def load_model(self, **kwargs: Any) -> None:
        """Load the base. Raises ValueError if a layer that the policy adapts is not one that the engine can adapt."""
        clear_new_blocks()
        super().load_model(**kwargs)
        # Nobody reads the ranks of the tokens that were drawn, and counting them takes 7 % of a step of 64 rows.
        sampler.batched_count_greater_than = _no_ranks
        options = self.vllm_config.additional_config
        self._layers = adapt(self.get_model(), options["rank"], set(options["targets"]), pack)

    def adopt(self, folder: str) -> None:
        """Use the adapter in a folder from now on. Raises ValueError if the model lacks a module of it."""
        scale = PEFTHelper.from_local_dir(folder, self.model_config.max_model_len).vllm_lora_scaling_factor
        mapper = getattr(self.get_model(), "hf_to_vllm_mapper", None)
        renames = mapper.get_rename_mapper() if mapper else None
        matrices = {
            parse_fine_tuned_lora_name(name, renames): tensor
            for name, tensor in load_file(Path(folder) / "adapter_model.safetensors").items()
        }
        taken = {part for layer in self._layers for part in layer.take(matrices, scale)}
        if missing := {part for part, _ in matrices} - taken:
            raise ValueError(f"The engine's model has no module {min(missing)}.")

    def sample_tokens(self, grammar_output: Any) -> Any:
        """Draw a step's tokens."""
        with hold_generators(self.model_runner):
            return super().sample_tokens(grammar_output)


def pack(matrix: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """The product of rows with a matrix that oneDNN has packed, which takes half as long as torch's with so few columns or rows."""
    handler = custom_ops.create_onednn_mm(matrix, PREPARED_SIZES)
    return lambda x: custom_ops.onednn_mm(handler, x, None)


def _no_ranks(log_probabilities: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    return torch.zeros(len(log_probabilities), dtype=torch.int64)
