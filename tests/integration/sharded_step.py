"""Trains a sharded and an unsharded model for a few steps: `torchrun sharded_step.py BASE OUTPUT`.

accelerate shards on GPUs only; this is torch's own `fully_shard`, which it calls, on CPUs.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from services.training.methods.learned_loss import learned_loss
from services.training.methods.model import trainable_model
from services.training.methods.processes import gather_model
from services.training.recipe import Recipe, load_recipe
from tailor.blocked_imports import hide_packages

STEPS = 3


def build(base: Path) -> Any:
    """The tiny base with a fresh adapter."""
    settings = load_recipe("tiny").model_dump()
    settings["adapter"]["dropout"], settings["precision"] = 0.0, "f32"
    return trainable_model(base, Recipe.model_validate(settings), None).train()


def steps(model: Any, bins: list[list[int]]) -> list[float]:
    """Train on bins of two rows each and return their losses."""
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=1e-2)
    losses = []
    for tokens in bins:
        half = len(tokens) // 2
        positions = torch.tensor([[*range(half), *range(len(tokens) - half)]])
        inputs = {"input_ids": torch.tensor([tokens]), "labels": torch.tensor([tokens]), "position_ids": positions}
        loss = learned_loss(model, inputs, None)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss))
    return losses


def main() -> None:
    """Train both ways on the same bins and write the comparison."""
    hide_packages("sklearn", "scipy", "bitsandbytes")
    base, output = Path(sys.argv[1]), Path(sys.argv[2])
    bins = [[5 + (place * 7 + step) % 200 for place in range(24)] for step in range(STEPS)]
    plain = build(base)
    expected = steps(plain, bins)
    distributed.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
    model = build(base)
    for layer in model.get_base_model().model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    local = sum(weight.to_local().numel() for weight in model.parameters())
    losses = steps(model, bins)
    gathered = gather_model(model, lambda: build(base))
    if gathered is not None:
        expected_weights = plain.state_dict()
        differences = [
            float((expected_weights[name] - weight).abs().max()) for name, weight in gathered.state_dict().items()
        ]
        share = local / sum(weight.numel() for weight in plain.parameters())
        output.write_text(
            json.dumps({"expected": expected, "losses": losses, "difference": max(differences), "share": share})
        )
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
