"""A sweep on a tiny model with the real worker: the best rate is trained in full, and a killed sweep repeats no finished trial."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from services.training.bases.store import fetch_here
from services.training.recipe import Recipe
from services.training.worker.reload_check import compute_figures
from tailor.storage.buckets import MODELS
from tailor.storage.ref import Ref
from tests import training
from tests.models import make_tiny_base, spoil
from tests.training import House, KilledError, Service, adapter, furnish, store_dataset

pytestmark = [pytest.mark.integration, pytest.mark.slow]

# Without a fresh process for each reload check: test_training_worker has those.
train = partial(training.train, reload=compute_figures)

RATES = (1e-5, 1e-2, 1e-1)


def row(number: int) -> dict[str, Any]:
    words = ["ledger", "control", "anchor", "horizon", "friction", "envelope", "readiness", "obligation"]
    answer = " ".join(words[(number + place) % len(words)] for place in range(12))
    messages = [{"role": "user", "content": f"count from {number}"}, {"role": "assistant", "content": answer}]
    return {"row_id": f"row_{number:02}", "messages": messages}


def recipe(method: str = "sweep", **changes: Any) -> Recipe:
    settings: dict[str, Any] = {
        "method": method,
        "adapter": {"kind": "lora", "r": 4, "alpha": 8, "dropout": 0.05},
        "optimizer": {"learning_rate": 1e-4},
        "batch": {"tokens": 256, "max_length": 128},
        "limit": {"epochs": 10},
    }
    if method == "sweep":
        settings["sweep"] = {"factors": [rate / 1e-4 for rate in RATES], "share": 0.4}
    return Recipe.model_validate({**settings, **changes})


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    base = make_tiny_base(
        tmp_path_factory.mktemp("tiny"), [row(number)["messages"][1]["content"] for number in range(8)], vocabulary=400
    )
    return furnish(tmp_path_factory.mktemp("house"), f"path:{base}", fetch_here)


@pytest.fixture(scope="module")
def rows(house: House) -> Ref:
    splits = {"train": [row(number) for number in range(12)], "held_out": [row(number) for number in range(12, 16)]}
    return store_dataset(house, "sft", splits)


def manifest(house: House, service: Service) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(house.store.get(adapter(service)))
    return content


def weights(house: House, service: Service) -> bytes:
    (file,) = [file for file in manifest(house, service)["files"] if file["path"] == "adapter_model.safetensors"]
    return house.store.read(MODELS, file["key"])


def trials(service: Service) -> list[float]:
    return list(dict.fromkeys(report.learning_rate for report in service.progress if report.phase == "trial"))


def test_sweep_trains_the_best_rate_and_repeats_no_finished_trial_after_a_kill(house: House, rows: Ref) -> None:
    whole = train(house, "run_whole", recipe(), rows)
    metrics = manifest(house, whole)["metrics"]
    assert trials(whole) == pytest.approx(list(RATES), rel=1e-6)
    losses = {rate: metrics[f"sweep_loss_at_{rate:g}"] for rate in RATES}
    assert metrics["sweep_learning_rate"] == min(RATES, key=lambda rate: losses[rate])
    assert len(set(losses.values())) == len(RATES)

    with pytest.raises(KilledError):
        train(house, "run_cut", recipe(), rows, dies_at="note-sweep-0.01.json")
    second = train(house, "run_cut", recipe(), rows, epoch=2)
    assert trials(second) == pytest.approx(list(RATES[1:]), rel=1e-6)
    assert manifest(house, second)["metrics"] == metrics
    assert weights(house, second) == weights(house, whole)
    assert house.store.list_keys(MODELS, "runs/run_cut/") == []


def test_sweep_without_held_out_rows_fails_with_the_reason(house: House, tmp_path: Path) -> None:
    here = House(house.store, house.base, tmp_path)
    ended = train(here, "run_blind", recipe(), store_dataset(here, "sft", {"train": [row(0)]}))
    assert ended.failed is not None
    assert ended.failed.reason == "NO_HELD_OUT_ROWS"
    # Before any trial.
    assert trials(ended) == []


def test_rates_that_diverge_end_their_trials_and_not_the_sweep(tmp_path: Path) -> None:
    base = spoil(make_tiny_base(tmp_path / "tiny", ["count from one"], vocabulary=400))
    (tmp_path / "house").mkdir()
    house = furnish(tmp_path / "house", f"path:{base}", fetch_here)
    rows = store_dataset(house, "sft", {"train": [row(0)], "held_out": [row(1)]})
    ended = train(house, "run_nan", recipe(), rows)
    assert ended.failed is not None
    assert ended.failed.reason == "DIVERGED"
    # A reported NaN would have failed the run at the first rate.
    assert trials(ended) == []
    notes = [key for key in house.store.list_keys(MODELS, "runs/run_nan/") if "note-sweep" in key]
    assert len(notes) == len(RATES)
