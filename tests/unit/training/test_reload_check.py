"""The check of saved weights: the rows that it reads, what it refuses, and the words for a process that fails."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.training.methods.loading import read_window
from services.training.recipe import load_recipe
from services.training.worker import reload_check
from services.training.worker.reload_check import CONVERSATIONS, LONG_ANSWER, Figures, choose_rows, run_fresh, verify
from services.training.worker.worker import explain_failure
from tailor.chat import Encoded
from tailor.errors import FailedPrecondition

ROWS = [Encoded(f"row_{number}", (5, 6, 7, 8), 2) for number in range(4)]


@dataclass(frozen=True)
class Reloaded:
    """Answers with the figures that a fresh process would compute."""

    figures: Figures

    def __call__(self, *_: Path) -> Figures:
        return self.figures


def check(tmp_path: Path, figures: Figures, expected: Figures, precision: str = "f32") -> float:
    recipe = load_recipe("lora").model_copy(update={"precision": precision})
    return verify(
        tmp_path, tmp_path / "weights", recipe, ROWS, kind="policy", expected=expected, reload=Reloaded(figures)
    ).serving_difference


ALONE = [[-1.0, -3.0], [-2.0, -2.0], [-3.0, -1.0], [-4.0, -2.0]]
SAME = {"trained": ALONE, "own": ALONE, "served": ALONE[:2]}


def test_packed_rows_must_be_those_of_the_models_own_attention(tmp_path: Path) -> None:
    assert check(tmp_path, SAME, {"trained": ALONE, "packed": ALONE}) == 0.0
    # The means are equal.
    leaking = [*ALONE[:2], [-2.5, -1.5], ALONE[3]]
    with pytest.raises(FailedPrecondition, match=r"0\.500 nats") as refused:
        check(tmp_path, SAME, {"trained": ALONE, "packed": leaking})
    assert refused.value.reason == "ADAPTER_DIFFERS"
    with pytest.raises(FailedPrecondition, match="would differ"):
        check(tmp_path, {**SAME, "own": leaking}, {"trained": ALONE})


def test_attention_may_differ_by_the_rounding_of_its_precision(tmp_path: Path) -> None:
    rounded = [[-1.1, -2.9], *ALONE[1:]]
    assert check(tmp_path, {**SAME, "own": rounded}, {"trained": ALONE}, precision="bf16") == 0.0
    with pytest.raises(FailedPrecondition, match=r"0\.100 nats"):
        check(tmp_path, {**SAME, "own": rounded}, {"trained": ALONE})


def test_served_figures_may_differ_as_far_as_quantisation_does_but_must_be_numbers(tmp_path: Path) -> None:
    figures = {**SAME, "served": [[-1.5, -3.0], [-2.0, -2.0]]}
    assert check(tmp_path, figures, {"trained": ALONE}) == 0.25
    for name in ("trained", "own", "served"):
        with pytest.raises(FailedPrecondition):
            check(tmp_path, {**figures, name: [[float("nan"), -3.0], *figures[name][1:]]}, {"trained": ALONE})


def test_a_row_is_longer_than_the_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    described = {
        "model_type": "mistral",
        "sliding_window": 512,
        "max_position_embeddings": 4096,
    }
    (tmp_path / "config.json").write_text(json.dumps(described), encoding="utf-8")
    assert read_window(tmp_path) == 512
    monkeypatch.setattr(reload_check, "encode_probes", lambda _: ROWS[: len(CONVERSATIONS)])
    *others, beyond = choose_rows(tmp_path, None, ROWS)
    assert (len(beyond.tokens), beyond.prompt_length) == (512 + LONG_ANSWER, 512)
    assert [row.row_id for row in others] == ["row_0", "row_1", "row_0", "row_1"]
    (tmp_path / "config.json").write_text(json.dumps({**described, "sliding_window": None}), encoding="utf-8")
    assert choose_rows(tmp_path, None, ROWS) == others


@pytest.mark.parametrize(
    ("error", "alone", "reason", "words"),
    [
        (ValueError("a text of a customer"), False, "CHILD_FAILED", "ValueError"),
        (RuntimeError("size mismatch"), True, "CHILD_FAILED", "RuntimeError"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), False, "DOES_NOT_FIT", "not enough memory"),
        (MemoryError(), True, "DOES_NOT_FIT", "not enough memory"),
        (RuntimeError("connection closed by peer"), False, "", ""),
    ],
)
def test_an_error_of_training_is_told_by_its_kind(error: Exception, alone: bool, reason: str, words: str) -> None:
    failure = explain_failure(error, alone=alone)
    assert (failure.reason if failure else "") == reason
    assert failure is None or (words in failure.message and "customer" not in failure.message)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise MemoryError", "MemoryError, for lack of memory"),
        ("import os; os.kill(os.getpid(), 9)", "SIGKILL, for lack of memory"),
        ("class OutOfMemoryError(RuntimeError): pass\nraise OutOfMemoryError('CUDA')", "OutOfMemoryError: CUDA, for"),
        ("raise ValueError('size mismatch')", "ValueError: size mismatch. Repeat the export, or create the run"),
        ("import time; time.sleep(60)", "it took more than 1 seconds"),
    ],
)
def test_a_process_that_fails_says_why(code: str, words: str) -> None:
    seconds = 1 if "sleep" in code else 60
    with pytest.raises(FailedPrecondition, match=words) as refused:
        run_fresh([sys.executable, "-c", code], seconds)
    assert refused.value.reason == "ADAPTER_DOES_NOT_LOAD"
