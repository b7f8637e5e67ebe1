"""Proof that what was saved loads: a fresh process finds the same figures, on probe rows that the manifest keeps for servers, and on a few
rows that the adapter learned from, which nothing keeps.

`python -m services.training.worker.probes BASE WEIGHTS REQUEST.json` is that process.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.training.methods.held_out import answer_log_probabilities
from services.training.methods.reward_model import scores
from services.training.methods.rows import Encoded, encode
from services.training.recipe import Recipe
from tailor.errors import FailedPrecondition, Reason
from tailor.hardware import computes_in_bf16

# Of no house: they stay in the manifest, which outlives the rows that the adapter learned from, and so may hold none of those.
CONVERSATIONS = {
    "probe-summary": ("Summarise the findings in one sentence.", "The controls work as designed, with one exception."),
    "probe-next-step": ("What should happen next?", "The owner agrees a date, records it, and reports back."),
}
MAX_LENGTH = 512
LEARNED = 2
# Nats a token, or points of reward. An adapter is kept as it was trained; all weights are trained in f32 and kept in bf16, which moves
# them a little.
ADAPTER_TOLERANCE = 0.002
FULL_TOLERANCE = 0.05
VERIFY_SECONDS = 1800


@dataclass(frozen=True)
class Proof:
    """`difference` is the largest between trained and reloaded; `served` are the probes' figures at the precision that serves."""

    difference: float
    served: list[float]


def shortest(rows: Sequence[Encoded]) -> list[Encoded]:
    """The rows to prove with, of those that were learned from: the shortest two."""
    return sorted(rows, key=lambda row: (len(row.tokens), row.row_id))[:LEARNED]


def rows(tokenizer: Any) -> list[Encoded]:
    """The probe rows through the base's chat template."""
    return [
        encode(
            name, [{"role": "user", "content": ask}, {"role": "assistant", "content": answer}], tokenizer, MAX_LENGTH
        )
        for name, (ask, answer) in CONVERSATIONS.items()
    ]


def measure(kind: str, model: Any, probes: Sequence[Encoded]) -> list[float]:
    """Each row's figure, one row at a time: the mean log-probability (nats) of its answer, or its reward."""
    model.eval()
    if kind == "reward":
        return [scores(model, [row.tokens])[0] for row in probes]
    return [float(answer_log_probabilities(model, row).mean()) for row in probes]


def entries(kind: str, probes: Sequence[Encoded], proof: Proof) -> list[dict[str, Any]]:
    """The probes as the manifest keeps them, so that a server can compute the same."""
    name = "reward" if kind == "reward" else "log_probability"
    return [
        {"row_id": row.row_id, "tokens": list(row.tokens), "prompt_length": row.prompt_length, name: round(figure, 6)}
        for row, figure in zip(probes, proof.served, strict=True)
    ]


def verify(
    base: Path, weights: Path, recipe: Recipe, asked: Sequence[Encoded], *, kind: str, expected: Sequence[float]
) -> Proof:
    """Reload in a fresh process and compare; the first rows are the probes, in their order.

    FailedPrecondition (ADAPTER_DOES_NOT_LOAD, ADAPTER_DIFFERS) where the saved weights are not those that were trained.
    """
    request = weights.parent / "probes.json"
    body = {
        "recipe": recipe.to_json(),
        "kind": kind,
        "rows": [[row.row_id, row.tokens, row.prompt_length] for row in asked],
    }
    request.write_text(json.dumps(body), encoding="utf-8")
    command = [sys.executable, "-m", "services.training.worker.probes", str(base), str(weights), str(request)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=VERIFY_SECONDS, check=False)
    if done.returncode != 0:
        raise FailedPrecondition(Reason.ADAPTER_DOES_NOT_LOAD, "What was saved does not load in a fresh process.")
    found: dict[str, list[float]] = json.loads(done.stdout.strip().splitlines()[-1])
    difference = max(abs(one - other) for one, other in zip(found["trained"], expected, strict=True))
    # "Not within" rather than "over": a NaN is refused too.
    if not difference <= (FULL_TOLERANCE if recipe.adapter.kind == "none" else ADAPTER_TOLERANCE):
        raise FailedPrecondition(
            Reason.ADAPTER_DIFFERS, f"What was saved answers otherwise: {difference:.3f} nats a token."
        )
    return Proof(difference, found["served"])


def as_served(recipe: Recipe, kind: str) -> Recipe:
    """The recipe at the precision that serves: no NF4, bf16 where the machine computes in it. A reward adapter is asked as trained."""
    if kind == "reward":
        return recipe
    plain = recipe.adapter.model_copy(update={"kind": "none" if recipe.adapter.kind == "none" else "lora"})
    return recipe.model_copy(
        update={"adapter": plain, "precision": "bf16" if computes_in_bf16() else "f32"},
    )


def main(arguments: list[str]) -> int:
    """The fresh process."""
    from services.training.methods.model import load_saved

    base, weights, request = map(Path, arguments)
    body = json.loads(request.read_text(encoding="utf-8"))
    recipe, kind = Recipe.model_validate_json(body["recipe"]), body["kind"]
    asked = [Encoded(row_id, tuple(tokens), prompt_length) for row_id, tokens, prompt_length in body["rows"]]
    trained = measure(kind, load_saved(base, weights, recipe, kind), asked)
    serving = as_served(recipe, kind)
    probes = len(CONVERSATIONS)
    served = (
        trained[:probes]
        if serving == recipe
        else measure(kind, load_saved(base, weights, serving, kind), asked[:probes])
    )
    print(json.dumps({"trained": trained, "served": served}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
