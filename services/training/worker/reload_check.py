"""A check that the saved weights load: a fresh process must compute the same figures as the trained model.

It computes them on probe rows, which the manifest keeps for servers, and on a few learned rows and one beyond the base's window, which are
not stored. Besides, the model's own attention must compute for each row alone what the trained model computes for all of them packed.
The process is `python -m services.training.worker.reload_check BASE WEIGHTS REQUEST.json [COMPUTE_LOCK]`.
"""

import heapq
import json
import math
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from services.training.bases.capabilities import read_capabilities
from services.training.methods.callers_first import make_way
from services.training.methods.held_out import answer_log_probabilities, packed_log_probabilities
from services.training.methods.loading import hide_unused_packages, read_context, read_window
from services.training.methods.memory import free_memory
from services.training.methods.reward_model import score
from services.training.recipe import AdapterRecipe, OptimizerRecipe, Recipe
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
# Of the same weights with another attention, which rounds otherwise: the mean over a row of the differences of its tokens, which do not
# cancel. SmolLM2-135M differed by 0.00002 in f32 and by 0.066 in bf16; an ignored window by 0.04 to 1.5 (2026-12-02).
ATTENTION_TOLERANCE, ROUNDED_TOLERANCE = 0.005, 0.15
VERIFY_SECONDS = 1800
# In the words of torch and of Python.
OUT_OF_MEMORY = ("OutOfMemoryError", "MemoryError", "not enough memory", "allocate memory")
# The tokens of the row beyond the window that are compared, and the longest such row.
LONG_ANSWER, LONGEST = 32, 8192

# The log-probabilities of each row's answer, token by token, or its reward only, by how they are computed: `trained`, as in training;
# `packed`, with all rows in one pass; `own`, with the model's own attention; `served`, at serving precision, of the probes only.
Figures = Mapping[str, list[list[float]]]
Reload = Callable[[Path, Path, Path], Figures]


@dataclass(frozen=True)
class ReloadCheck:
    """`difference` is a row's largest between the trained and the reloaded model; `served` are the probes' figures at serving precision,
    which differ from the reloaded model's by `serving_difference` at most: mean log-probabilities in nats per token, or rewards.
    """

    difference: float
    served: list[float]
    serving_difference: float = 0.0


def choose_rows(base: Path, tokenizer: Any, learned: Sequence[Encoded]) -> list[Encoded]:
    """The rows of the check: the probes, the shortest of the learned rows, and one beyond the base's window if it has one."""
    probes = encode_probes(tokenizer)
    tokens = min(read_window(base) + LONG_ANSWER, read_context(base), LONGEST)
    text = [token for row in probes for token in row.tokens]
    longer = (text * (tokens // len(text) + 1))[:tokens] if read_window(base) else []
    beyond = [Encoded("beyond-window", tuple(longer), tokens - LONG_ANSWER)] if len(longer) > LONG_ANSWER else []
    return [*probes, *choose_shortest(learned), *beyond]


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


def measure(kind: str, model: Any, rows: Sequence[Encoded]) -> list[list[float]]:
    """The figures of each row, one row at a time: the log-probabilities of its answer (nats, by token), or its reward."""
    model.eval()
    if kind == "reward":
        return [score(model, [row.tokens]) for row in rows]
    return [answer_log_probabilities(model, row).tolist() for row in rows]


def measure_trained(kind: str, base: Path, model: Any, rows: Sequence[Encoded]) -> Figures:
    """The figures of a trained model, also of packed rows if it learned from such."""
    alone = measure(kind, model, rows)
    if kind == "reward" or not read_capabilities(base).packed:
        return {"trained": alone}
    return {"trained": alone, "packed": [row.tolist() for row in packed_log_probabilities(model, rows)]}


def to_entries(kind: str, rows: Sequence[Encoded], check: ReloadCheck, precision: str) -> list[dict[str, Any]]:
    """The probes, with which the rows begin, as in the manifest, so that a server can compute the same figures in that precision."""
    name = "reward" if kind == "reward" else "log_probability"
    return [
        {
            "row_id": row.row_id,
            "tokens": list(row.tokens),
            "prompt_length": row.prompt_length,
            name: round(figure, 6),
            "precision": precision,
        }
        for row, figure in zip(rows, check.served, strict=False)
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
        figures: Figures = json.loads(run_fresh(command).strip().splitlines()[-1])
    return figures


def run_fresh(command: Sequence[str], seconds: float = VERIFY_SECONDS) -> str:
    """What the fresh process prints. Blocks for at most `seconds`.

    Raises FailedPrecondition (ADAPTER_DOES_NOT_LOAD) with the error that ended it.
    """
    try:
        child = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        cause = f"it took more than {seconds} seconds"
    else:
        if child.returncode == 0:
            return child.stdout
        cause = describe_exit(child.returncode, child.stderr, with_message=True)
        if child.returncode == -signal.SIGKILL or any(sign in child.stderr for sign in OUT_OF_MEMORY):
            cause += ", for lack of memory"
    log.error("saved weights do not load", error=cause)
    raise FailedPrecondition(
        Reason.ADAPTER_DOES_NOT_LOAD,
        f"The saved weights do not load in a fresh process: {cause}. Repeat the export, or create the run again: its last checkpoint is "
        "kept, and only this check is repeated.",
    )


def verify(
    base: Path,
    weights: Path,
    recipe: Recipe,
    rows: Sequence[Encoded],
    *,
    kind: str,
    expected: Figures,
    reload: Reload = reload_in_fresh_process,
) -> ReloadCheck:
    """Reload the weights, and compare their figures with the expected ones.

    The first rows must be the probes, in their order. Raises FailedPrecondition (ADAPTER_DOES_NOT_LOAD, ADAPTER_DIFFERS) if the saved
    weights are not the trained ones.
    """
    request = weights.parent / "probes.json"
    body = {"recipe": recipe.to_json(), "kind": kind, "rows": list(map(asdict, rows))}
    request.write_text(json.dumps(body), encoding="utf-8")
    figures = reload(base, weights, request)
    difference = _compare_means(figures["trained"], expected["trained"])
    # `not <=` rather than `>`, so that NaN fails too.
    if not difference <= (FULL_TOLERANCE if recipe.adapter.kind == "none" else ADAPTER_TOLERANCE):
        raise FailedPrecondition(
            Reason.ADAPTER_DIFFERS,
            f"The saved weights differ from the trained ones by {difference:.3f} nats per token. Run the recipe again.",
        )
    attention = max(
        _compare_tokens(figures.get("own", figures["trained"]), figures["trained"]),
        _compare_tokens(expected.get("packed", expected["trained"]), expected["trained"]),
        key=_order,
    )
    serving = _compare_means(figures["served"], figures["trained"][: len(figures["served"])])
    tolerance = ATTENTION_TOLERANCE if recipe.precision == "f32" else ROUNDED_TOLERANCE
    if not attention <= tolerance or not math.isfinite(serving):
        raise FailedPrecondition(
            Reason.ADAPTER_DIFFERS,
            f"Served rows would differ from learned ones by {max(attention, serving):.3f} nats per token, because this base's attention or "
            "precision is not computed alike. Report this defect, or use another base.",
        )
    return ReloadCheck(difference, [fmean(row) for row in figures["served"]], serving)


def verify_exported(base: Path, weights: Path, probes: Sequence[Mapping[str, Any]], reload: Reload) -> float:
    """Reload an exported folder, and return its largest difference from an adapter's stored probes. A whole model is its own base.

    Raises FailedPrecondition (ADAPTER_DOES_NOT_LOAD, ADAPTER_DIFFERS).
    """
    shape = AdapterRecipe(kind="none" if base == weights else "lora")
    recipe = Recipe(method="sft", adapter=shape, optimizer=OptimizerRecipe(), precision="f32")
    precision = probes[0].get("precision", "bf16")
    body = {"recipe": recipe.to_json(), "kind": "policy", "precision": precision, "rows": probes}
    request = weights.parent / "probes.json"
    request.write_text(json.dumps(body), encoding="utf-8")
    served = reload(base, weights, request)["served"]
    difference = _compare_means(served, [[probe["log_probability"]] for probe in probes])
    # Another processor rounds bf16 otherwise, and merged weights are rounded to it.
    if not difference <= (FULL_TOLERANCE if base == weights or precision == "bf16" else ADAPTER_TOLERANCE):
        raise FailedPrecondition(
            Reason.ADAPTER_DIFFERS,
            f"The exported folder differs from the trained adapter by {difference:.3f} nats per token. Train it again, or report this.",
        )
    return difference


def _compare_means(rows: Sequence[Sequence[float]], wanted: Sequence[Sequence[float]]) -> float:
    """The largest difference of rows' means; NaN if one of them is."""
    return _largest(abs(fmean(row) - fmean(other)) for row, other in zip(rows, wanted, strict=True))


def _compare_tokens(rows: Sequence[Sequence[float]], wanted: Sequence[Sequence[float]]) -> float:
    """The largest mean of a row's differences, token by token; NaN if one of them is."""
    pairs = (zip(row, other, strict=True) for row, other in zip(rows, wanted, strict=True))
    return _largest(fmean(abs(figure - other) for figure, other in pair) for pair in pairs)


def _largest(differences: Iterable[float]) -> float:
    return max(differences, key=_order)


def _order(difference: float) -> tuple[bool, float]:
    """NaN comes last."""
    return math.isnan(difference), difference


def to_serving(recipe: Recipe, kind: str) -> Recipe:
    """The recipe at serving precision: no NF4, and bf16 if the machine computes in it. A reward adapter is used as trained."""
    if kind == "reward":
        return recipe
    adapter = recipe.adapter.model_copy(update={"kind": "none" if recipe.adapter.kind == "none" else "lora"})
    served = recipe.model_copy(update={"adapter": adapter, "precision": "bf16"})
    return served.fit_processor(bf16=computes_in_bf16())


def compute_figures(base: Path, weights: Path, request: Path) -> Figures:
    """Load the saved weights, and compute the figures of the request's rows; only those in its precision if it names one."""
    from services.training.methods.model import load_saved

    body = json.loads(request.read_text(encoding="utf-8"))
    recipe, kind = Recipe.model_validate_json(body["recipe"]), body["kind"]
    rows = [Encoded(row["row_id"], tuple(row["tokens"]), row["prompt_length"]) for row in body["rows"]]
    if precision := body.get("precision"):
        exported = load_saved(base, weights, recipe.model_copy(update={"precision": precision}), kind)
        return {"served": measure(kind, exported, rows)}
    model = load_saved(base, weights, recipe, kind)
    figures = {"trained": measure(kind, model, rows)}
    serving, probes = to_serving(recipe, kind), len(CONVERSATIONS)
    if kind != "reward":
        plain = model.base_model.model if hasattr(model, "peft_config") else model
        plain.set_attn_implementation(read_capabilities(base).plain_attention)
        figures["own"] = measure(kind, model, rows)
        del plain
    del model
    # At serving precision the base may take four times as much.
    free_memory()
    alike = serving == recipe
    served = (
        figures["trained"][:probes] if alike else measure(kind, load_saved(base, weights, serving, kind), rows[:probes])
    )
    return {**figures, "served": served}


def main(arguments: list[str]) -> int:
    """The fresh process. Returns its exit code."""
    base, weights, request, *lock = map(Path, arguments)
    hide_unused_packages(Recipe.model_validate_json(json.loads(request.read_text(encoding="utf-8"))["recipe"]))
    make_way(next(iter(lock), None))
    print(json.dumps(compute_figures(base, weights, request)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
