"""vLLM's CPU worker that writes rollouts: every row uses the policy's adapter. vLLM imports it by name.

Serving's path for adapters looks up each row's adapter, and multiplies with each part of a layer (`tailor/engine/worker.py`). Here a layer
has two products, whose matrices are packed once per step. As in serving, the adapter is not merged into the base's weights, where bf16
would lose small updates.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from vllm.lora.peft_helper import PEFTHelper
from vllm.lora.utils import parse_fine_tuned_lora_name
from vllm.v1.outputs import LogprobsTensors, SamplerOutput
from vllm.v1.sample.metadata import SamplingMetadata
from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p
from vllm.v1.spec_decode.metadata import SpecDecodeMetadata
from vllm.v1.worker.cpu_worker import CPUWorker

from services.training.methods.engine_guesses import Guesses
from services.training.methods.engine_kernels import call_kernels
from services.training.methods.engine_layers import adapt
from services.training.methods.engine_products import pack_weights
from services.training.methods.engine_prompts import SharedReading
from services.training.methods.engine_sampling import NONE, draw_after_guesses
from tailor.engine.held_generators import hold_generators
from tailor.engine.overflow import clear_new_blocks


class RolloutWorker(CPUWorker):  # type: ignore[misc]
    """A CPU worker with one adapter, of the rank and for the layers that vLLM's additional configuration names."""

    def load_model(self, **kwargs: Any) -> None:
        """Load the base. Raises ValueError if a layer that the policy adapts is not one that the engine can adapt."""
        clear_new_blocks()
        pack_weights(self.model_config.dtype)
        super().load_model(**kwargs)
        self._guesses: Guesses = self.model_runner.drafter
        self.model_runner.rejection_sampler = GuessSampler(self._guesses)
        # Otherwise vLLM guesses zeros near the greatest length. Its scheduler cuts guesses there.
        self.model_runner._input_fits_in_drafter = lambda _: True
        options, model = self.vllm_config.additional_config, self.get_model()
        self._layers = adapt(model, options["rank"], set(options["targets"]))
        call_kernels(model)
        self.model_runner._model_forward = SharedReading(self.model_runner)

    def begin(self, folder: str, prompts: Sequence[Sequence[int]]) -> None:
        """Use the adapter in a folder from now on, for answers to prompts. Raises ValueError if the model lacks a module of it."""
        self._guesses.begin(prompts)
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


class GuessSampler:
    """Draws a step's tokens, in the place of vLLM's rejection sampler, which draws with other random numbers than without guesses.

    The log-probabilities of the drawn tokens come without their ranks, which nobody reads: counting them takes 7 % of a step of 64 rows.
    """

    def __init__(self, guesses: Guesses) -> None:
        self._guesses = guesses

    def __call__(
        self, layout: SpecDecodeMetadata, _: object, logits: torch.Tensor, sampling: SamplingMetadata
    ) -> SamplerOutput:
        """The tokens of all rows from logits (guessed tokens + rows, tokens)."""
        rows = torch.repeat_interleave(torch.tensor(layout.num_draft_tokens) + 1)
        heated = logits.to(torch.float32).div_(sampling.temperature[rows, None])
        k, p = (None if limit is None else limit[rows] for limit in (sampling.top_k, sampling.top_p))
        guesses = [guess.tolist() for guess in layout.draft_token_ids.split(layout.num_draft_tokens)]
        tokens, likely = draw_after_guesses(apply_top_k_top_p(heated, k, p), guesses, sampling.generators)
        drawn = (tokens != NONE).sum(dim=1).tolist()
        self._guesses.count(
            right=sum(drawn) - len(drawn), wrong=sum(n <= len(guess) for n, guess in zip(drawn, guesses, strict=True))
        )
        tokens = tokens.to(torch.int32)
        ranks = torch.zeros(tokens.numel(), dtype=torch.int64)
        return SamplerOutput(tokens, LogprobsTensors(tokens.view(-1, 1), likely.view(-1, 1), ranks))
