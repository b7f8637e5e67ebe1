"""Proof that what was saved loads: the same rows get the same log-probabilities in a fresh process.

`python -m services.training.adapters.probes BASE WEIGHTS REQUEST.json` is that process.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from services.training.adapters.rows import Encoded
from services.training.recipe import Recipe
from tailor.errors import FailedPrecondition

PROBES = 2
# Nats a token. An adapter is kept as it was trained; all weights are trained in f32 and kept in bf16, which moves them a little.
ADAPTER_TOLERANCE = 0.002
FULL_TOLERANCE = 0.05
VERIFY_SECONDS = 1800


def choose(rows: Sequence[Encoded]) -> list[Encoded]:
    """The probe rows: the shortest two."""
    return sorted(rows, key=lambda row: (len(row.tokens), row.row_id))[:PROBES]


def log_probabilities(model: Any, rows: Sequence[Encoded]) -> list[float]:
    """The mean log-probability (nats) of each row's answer, one row at a time."""
    import torch

    model.eval()
    device = next(model.parameters()).device
    means = []
    with torch.no_grad():
        for row in rows:
            tokens = torch.tensor([row.tokens], device=device)
            logits = model(input_ids=tokens, use_cache=False).logits[0, row.prompt_length - 1 : -1].float()
            chosen = torch.log_softmax(logits, dim=-1).gather(1, tokens[0, row.prompt_length :, None])
            means.append(float(chosen.mean()))
    return means


def verify(base: Path, weights: Path, recipe: Recipe, rows: Sequence[Encoded], expected: Sequence[float]) -> float:
    """Reload in a fresh process and compare; the largest difference.

    FailedPrecondition (ADAPTER_DOES_NOT_LOAD, ADAPTER_DIFFERS) where the saved weights are not those that were trained.
    """
    request = weights.parent / "probes.json"
    body = {"recipe": recipe.to_json(), "rows": [[row.row_id, row.tokens, row.prompt_length] for row in rows]}
    request.write_text(json.dumps(body), encoding="utf-8")
    command = [sys.executable, "-m", "services.training.adapters.probes", str(base), str(weights), str(request)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=VERIFY_SECONDS, check=False)
    if done.returncode != 0:
        raise FailedPrecondition("ADAPTER_DOES_NOT_LOAD", "What was saved does not load in a fresh process.")
    found: list[float] = json.loads(done.stdout.strip().splitlines()[-1])
    difference = max(abs(one - other) for one, other in zip(found, expected, strict=True))
    # "Not within" rather than "over": a NaN is refused too.
    if not difference <= (FULL_TOLERANCE if recipe.adapter.kind == "none" else ADAPTER_TOLERANCE):
        raise FailedPrecondition("ADAPTER_DIFFERS", f"What was saved answers otherwise: {difference:.3f} nats a token.")
    return difference


def main(arguments: list[str]) -> int:
    """The fresh process."""
    from services.training.adapters.model import load_base

    base, weights, request = map(Path, arguments)
    body = json.loads(request.read_text(encoding="utf-8"))
    recipe = Recipe.model_validate_json(body["recipe"])
    rows = [Encoded(row_id, tuple(tokens), prompt_length) for row_id, tokens, prompt_length in body["rows"]]
    if recipe.adapter.kind == "none":
        model = load_base(weights, recipe)
    else:
        from peft import PeftModel

        model = PeftModel.from_pretrained(load_base(base, recipe), weights)
    print(json.dumps(log_probabilities(model, rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
