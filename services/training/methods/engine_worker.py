"""vLLM's CPU worker that writes rollouts: every row uses the policy's adapter. vLLM imports it by name.

Serving's path for adapters looks up each row's adapter, and multiplies with each part of a layer (`tailor/engine/worker.py`). Here a layer
has two products, whose matrices are packed once per step. As in serving, the adapter is not merged into the base's weights, where bf16
would lose small updates.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from vllm.lora.peft_helper import PEFTHelper
from vllm.lora.utils import parse_fine_tuned_lora_name
from vllm.v1.outputs import LogprobsTensors
from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p
from vllm.v1.worker.cpu_worker import CPUWorker

from services.training.methods.engine_kernels import call_kernels
from services.training.methods.engine_layers import adapt
from services.training.methods.engine_products import pack_weights
from services.training.methods.engine_prompts import SharedReading
from services.training.methods.engine_sampling import draw
from tailor.engine.held_generators import hold_generators
from tailor.engine.overflow import clear_new_blocks


class RolloutWorker(CPUWorker):  # type: ignore[misc]
    """A CPU worker with one adapter, of the rank and for the layers that vLLM's additional configuration names."""

    def load_model(self, **kwargs: Any) -> None:
        """Load the base. Raises ValueError if a layer that the policy adapts is not one that the engine can adapt."""
        clear_new_blocks()
        pack_weights(self.model_config.dtype)
        super().load_model(**kwargs)
        self.model_runner.sampler.topk_topp_sampler.forward = _sample
        self.model_runner.sampler.gather_logprobs = _drawn_only
        options, model = self.vllm_config.additional_config, self.get_model()
        self._layers = adapt(model, options["rank"], set(options["targets"]))
        call_kernels(model)
        self.model_runner._model_forward = SharedReading(self.model_runner)

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


def _sample(
    logits: torch.Tensor, generators: Mapping[int, torch.Generator], k: torch.Tensor | None, p: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Drawn tokens (rows,), and the log-probabilities that they were drawn with (rows, 1)."""
    return draw(apply_top_k_top_p(logits, k, p), generators)


def _drawn_only(log_probabilities: torch.Tensor, _: int, token_ids: torch.Tensor) -> LogprobsTensors:
    """The log-probabilities (rows, 1), or those of the given tokens among (rows, tokens).

    Without the ranks of the tokens, which nobody reads: counting them takes 7 % of a step of 64 rows.
    """
    tokens = token_ids.unsqueeze(-1)
    if log_probabilities.shape[1] > 1:
        log_probabilities = log_probabilities.gather(-1, tokens)
    return LogprobsTensors(tokens.to(torch.int32), log_probabilities, torch.zeros_like(token_ids))
