"""A check that the saved weights load: a fresh process must compute the same figures as the trained model.

It computes them on probe rows, which the manifest keeps for servers, and on a few learned rows, which are not stored. The process is
`python -m services.training.worker.reload_check BASE WEIGHTS REQUEST.json [COMPUTE_LOCK]`.
"""

import heapq
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.training.methods.callers_first import make_way
from services.training.methods.held_out import answer_log_probabilities
from services.training.methods.loading import hide_unused_packages
from services.training.methods.reward_model import score
from services.training.recipe import Recipe
from tailor.chat import Encoded, encode
from tailor.compute_lock import memory_lock
from tailor.errors import FailedPrecondition, Reason
from tailor.hardware import computes_in_bf16
from tailor.logging import describe_exit, get_logger

log = get_logger(__name__)

# These stay in the manifest, which outlives the rows that the adapter learned from, so they must not come from any customer.
CONVERSATIONS = {
    "probe-summary": ("Summarise the findings in one sentence.", "The controls work as designed, with one exception."),
    "probe-next-step": ("What should happen next?", "The owner agrees a date, records it, and reports back."),
}
LEARNED_ROWS = 2
# In nats per token, or points of reward. An adapter is saved as it was trained. All weights are trained in f32 but saved in bf16, which
# changes them slightly.
ADAPTER_TOLERANCE = 0.002
FULL_TOLERANCE = 0.05
VERIFY_SECONDS = 1800

# The figures of the saved weights, as `compute_figures` returns them.
Figures = Mapping[str, list[float]]
Reload = Callable[[Path, Path, Path], Figures]


@dataclass(frozen=True)
class ReloadCheck:
    """`difference` is the largest between the trained and the reloaded model; `served` are the probes' figures at serving precision."""

    difference: float
    served: list[float]


def choose_shortest(rows: Sequence[Encoded]) -> list[Encoded]:
    """The two shortest of the learned rows."""
    # Rows are read one by one, and only these are in memory.
    return heapq.nsmallest(LEARNED_ROWS, rows, key=lambda row: (len(row.tokens), row.row_id))


def encode_probes(tokenizer: Any) -> list[Encoded]:
    """The probe rows, by the base's chat template."""
    return [
        encode(
            name,
            [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
            tokenizer,
        )
        for name, (question, answer) in CONVERSATIONS.items()
    ]


def measure(kind: str, model: Any, rows: Sequence[Encoded]) -> list[float]:
    """The figure of each row, one row at a time: the mean log-probability of its answer (nats per token), or its reward."""
    model.eval()
    if kind == "reward":
        return [score(model, [row.tokens])[0] for row in rows]
    return [float(answer_log_probabilities(model, row).mean()) for row in rows]


def to_entries(kind: str, rows: Sequence[Encoded], check: ReloadCheck) -> list[dict[str, Any]]:
    """The probes as in the manifest, so that a server can compute the same figures."""
    name = "reward" if kind == "reward" else "log_probability"
    return [
        {"row_id": row.row_id, "tokens": list(row.tokens), "prompt_length": row.prompt_length, name: round(figure, 6)}
        for row, figure in zip(rows, check.served, strict=True)
    ]


def reload_in_fresh_process(base: Path, weights: Path, request: Path, compute_lock: Path | None = None) -> Figures:
    """Run `compute_figures` in a fresh process, which makes way for callers by the compute lock.

    Blocks for up to half an hour, after it has waited for the checks of other runs on this machine: each has another copy
    of the base in memory.
    Raises FailedPrecondition (ADAPTER_DOES_NOT_LOAD).
    """
    command = [sys.executable, "-m", "services.training.worker.reload_check", str(base), str(weights), str(request)]
    command += [str(compute_lock)] if compute_lock else []
    with memory_lock(compute_lock) if compute_lock else nullcontext():
        child = subprocess.run(command, capture_output=True, text=True, timeout=VERIFY_SECONDS, check=False)
    if child.returncode != 0:
        cause = describe_exit(child.returncode, child.stderr, with_message=True)
        log.error("saved weights do not load", error=cause)
        raise FailedPrecondition(
            Reason.ADAPTER_DOES_NOT_LOAD,
            f"The saved weights do not load in a fresh process: {cause}. Run the recipe again.",
        )
    figures: Figures = json.loads(child.stdout.strip().splitlines()[-1])
    return figures


def verify(
    base: Path,
    weights: Path,
    recipe: Recipe,
    rows: Sequence[Encoded],
    *,
    kind: str,
    expected: Sequence[float],
    reload: Reload = reload_in_fresh_process,
) -> ReloadCheck:
    """Reload the weights, and compare their figures with the expected ones.

    The first rows must be the probes, in their order. Raises FailedPrecondition (ADAPTER_DOES_NOT_LOAD, ADAPTER_DIFFERS) if the saved
    weights are not the trained ones.
    """
    request = weights.parent / "probes.json"
    body = {
        "recipe": recipe.to_json(),
        "kind": kind,
        "rows": [[row.row_id, row.tokens, row.prompt_length] for row in rows],
    }
    request.write_text(json.dumps(body), encoding="utf-8")
    figures = reload(base, weights, request)
    difference = max(abs(reloaded - wanted) for reloaded, wanted in zip(figures["trained"], expected, strict=True))
    # `not <=` rather than `>`, so that NaN fails too.
    if not difference <= (FULL_TOLERANCE if recipe.adapter.kind == "none" else ADAPTER_TOLERANCE):
        raise FailedPrecondition(
            Reason.ADAPTER_DIFFERS,
            f"The saved weights differ from the trained ones by {difference:.3f} nats per token. Run the recipe again.",
        )
    return ReloadCheck(difference, figures["served"])


def to_serving(recipe: Recipe, kind: str) -> Recipe:
    """The recipe at serving precision: no NF4, and bf16 if the machine computes in it. A reward adapter is used as trained."""
    if kind == "reward":
        return recipe
    adapter = recipe.adapter.model_copy(update={"kind": "none" if recipe.adapter.kind == "none" else "lora"})
    served = recipe.model_copy(update={"adapter": adapter, "precision": "bf16"})
    return served.fit_processor(bf16=computes_in_bf16())


def compute_figures(base: Path, weights: Path, request: Path) -> Figures:
    """Load the saved weights, and compute the figures of the request's rows: `trained` as trained, `served` at serving precision."""
    from services.training.methods.model import load_saved

    body = json.loads(request.read_text(encoding="utf-8"))
    recipe, kind = Recipe.model_validate_json(body["recipe"]), body["kind"]
    rows = [Encoded(row_id, tuple(tokens), prompt_length) for row_id, tokens, prompt_length in body["rows"]]
    trained = measure(kind, load_saved(base, weights, recipe, kind), rows)
    serving = to_serving(recipe, kind)
    probes = len(CONVERSATIONS)
    served = (
        trained[:probes]
        if serving == recipe
        else measure(kind, load_saved(base, weights, serving, kind), rows[:probes])
    )
    return {"trained": trained, "served": served}


def main(arguments: list[str]) -> int:
    """The fresh process. Returns its exit code."""
    base, weights, request, *lock = map(Path, arguments)
    hide_unused_packages(Recipe.model_validate_json(json.loads(request.read_text(encoding="utf-8"))["recipe"]))
    make_way(next(iter(lock), None))
    print(json.dumps(compute_figures(base, weights, request)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
