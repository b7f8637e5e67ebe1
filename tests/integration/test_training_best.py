"""The best weights of a run are its result, and a run that was lost after its last step is not trained again."""

import gc
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from services.training.bases.store import StoredBases, fetch_here
from services.training.methods import held_out
from services.training.recipe import Recipe
from services.training.worker.reload_check import Figures, compute_figures
from tailor.storage.buckets import MODELS
from tests import training
from tests.models import make_tiny_base
from tests.training import BASE, House, KilledError, Service, adapter, furnish, store_dataset
from tests.unit.training.stores import FileStore

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.integration, pytest.mark.slow]

train = partial(training.train, reload=compute_figures)
WORDS = ["ledger", "control", "anchor", "horizon", "friction", "envelope", "readiness", "obligation"]
STEPS = 60


def row(number: int, stride: int = 1) -> dict[str, Any]:
    answer = " ".join(WORDS[(number + stride * place) % len(WORDS)] for place in range(12))
    messages = [{"role": "user", "content": f"count from {number}"}, {"role": "assistant", "content": answer}]
    return {"row_id": f"row_{number:02}", "messages": messages}


def recipe(**changes: Any) -> Recipe:
    settings: dict[str, Any] = {
        "method": "sft",
        "adapter": {"kind": "lora", "r": 8, "alpha": 32},
        "optimizer": {"learning_rate": 2e-2, "schedule": "constant"},
        "batch": {"tokens": 512, "max_length": 128},
        "limit": {"epochs": 100, "max_steps": STEPS},
        "checkpoint_every_steps": 10,
    }
    return Recipe.model_validate({**settings, **changes})


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    texts = [str(row(number)["messages"][1]["content"]) for number in range(8)]
    base = make_tiny_base(tmp_path_factory.mktemp("tiny"), texts, vocabulary=400)
    return furnish(tmp_path_factory.mktemp("house"), f"path:{base}", fetch_here)


def manifest(house: House, service: Service) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(house.store.get(adapter(service)))
    return content


def weights(house: House, service: Service) -> bytes:
    (file,) = [file for file in manifest(house, service)["files"] if file["path"] == "adapter_model.safetensors"]
    return house.store.read(MODELS, file["key"])


def measured(service: Service) -> dict[int, float]:
    return {
        report.step: report.held_out_loss
        for report in service.progress
        if report.phase == "training" and report.HasField("held_out_loss")
    }


def test_the_result_of_an_overfitting_run_is_its_best_checkpoint_also_after_a_kill(house: House) -> None:
    """The held-out rows go through the same words in another order, so that learning the rows by heart makes them less likely."""
    splits = {"train": [row(number) for number in range(12)], "held_out": [row(20, stride=3)]}
    rows = store_dataset(house, "sft", splits)
    whole = train(house, "run_whole", recipe(), rows)
    losses = measured(whole)
    best = min(losses, key=lambda step: losses[step])
    found = manifest(house, whole)["metrics"]
    assert len(losses) > 3 and best < max(losses)
    assert found["kept_step"] == best and found["held_out_loss"] == pytest.approx(losses[best], abs=1e-4)
    assert whole.trained is not None and "held-out loss" in whole.trained.stopped_because

    with pytest.raises(KilledError):
        train(house, "run_cut", recipe(), rows, dies_at="stage-0-step-20/manifest.json")
    second = train(house, "run_cut", recipe(), rows, epoch=2)
    assert weights(house, second) == weights(house, whole)


def test_a_run_that_is_lost_after_its_last_step_is_not_trained_again(house: House) -> None:
    rows = store_dataset(house, "sft", {"train": [row(number) for number in range(12)], "held_out": [row(12)]})
    chosen = recipe(limit={"max_steps": 7})
    whole = train(house, "run_seven", chosen, rows)
    with pytest.raises(KilledError):
        # The adapter's card: after the last step, before anything of the result is stored.
        train(house, "run_lost", chosen, rows, reload=_killed)
    second = train(house, "run_lost", chosen, rows, epoch=2)
    assert [report.step for report in second.progress if report.phase == "training"] == []
    assert weights(house, second) == weights(house, whole)
    assert second.trained is not None and whole.trained is not None
    assert (second.trained.steps, second.trained.tokens) == (whole.trained.steps, whole.trained.tokens)


def _killed(*_: Path) -> Figures:
    raise KilledError


def test_model_trainer_and_optimiser_are_freed_before_the_reload_check(house: House, tmp_path: Path) -> None:
    """In a separate process, as a worker is: libraries keep the state of an earlier run in the same process."""
    command = f"from {__name__} import list_alive; list_alive({str(house.folder)!r}, {str(tmp_path)!r})"
    done = subprocess.run([sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    used, alive = json.loads(done.stdout.strip().splitlines()[-1]) if done.returncode == 0 else ([], done.stderr)
    assert len(used) >= 3 and alive == []


def list_alive(house: str, folder: str) -> None:
    """Print which objects of training are found before a worker ends its training, and which at the reload check."""
    from peft import PeftModel
    from torch.optim import Optimizer
    from transformers import Trainer

    def find() -> list[str]:
        kinds = (PeftModel, Trainer, Optimizer)
        return sorted({type(thing).__name__ for thing in gc.get_objects() if issubclass(type(thing), kinds)})

    used: list[str] = []
    alive: list[str] = []

    def find_then_measure(*arguments: Any) -> Any:
        used.extend(find())
        return measure(*arguments)

    def find_then_check(*paths: Path) -> Figures:
        alive.extend(find())
        return compute_figures(*paths)

    measure = held_out.loss
    store = FileStore(Path(house) / "store")
    base = StoredBases(store, Path(folder)).find(BASE)
    assert base is not None
    copied = House(store, base, Path(folder))
    rows = store_dataset(copied, "sft", {"train": [row(number) for number in range(12)], "held_out": [row(12)]})
    with patch.object(held_out, "loss", find_then_measure):
        train(copied, "run_freed", recipe(limit={"max_steps": 3}), rows, reload=find_then_check)
    print(json.dumps([sorted({*used}), alive]))


def test_an_error_of_a_library_fails_the_run_in_words_at_once(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("a text of a customer")

    monkeypatch.setattr("services.training.methods.model.trainable_model", refuse)
    rows = store_dataset(house, "sft", {"train": [row(1)], "held_out": []})
    failed = train(house, "run_defect", recipe(), rows).failed
    assert failed is not None and failed.reason == "CHILD_FAILED"
    assert "ValueError" in failed.message and "customer" not in failed.message
