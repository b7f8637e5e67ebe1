"""The card of an adapter."""

from dataclasses import replace
from pathlib import Path

from services.training.recipe import load_recipe
from services.training.spec import WorkerSpec
from services.training.worker.results import write_card
from tailor.api.events.v1.models_pb2 import AdapterTrained
from tailor.storage.ref import Ref

PARENT = Ref("s3://models/adapters/p/manifest.json", "p" * 64, 1)
SPEC = WorkerSpec(
    "run_1", 1, "reports", "d" * 64, Ref("", "", 0), "tiny", "b" * 64, "lora", "{}", 0.0, "", parent=PARENT
)
FIGURES = AdapterTrained(
    steps=54,
    rows=192,
    tokens=27_000,
    first_loss=3.9,
    last_loss=2.8,
    tokens_per_second=350.0,
    seconds=1800.0,
    memory_bytes=2**30,
    metrics={"held_out_loss": 3.06},
    rows_skipped=3,
)


def card(spec: WorkerSpec, folder: Path) -> str:
    write_card(spec, load_recipe("lora"), FIGURES, folder, kind="policy", licence="apache-2.0", unserved="")
    return (folder / "README.md").read_text(encoding="utf-8")


def test_card_describes_the_adapter_and_its_metrics(tmp_path: Path) -> None:
    text = card(SPEC, tmp_path)
    for part in ("tiny", "b" * 64, "licence apache-2.0", "d" * 64, "p" * 64, "lora: sft", "held_out_loss 3.06"):
        assert part in text
    assert "| cost | 1800 s, 350 tokens/s, peak 1024 MiB |" in text
    skipped = "3 rows left out, longer than the recipe or the base allows, or unfit for its chat template"
    assert f"192 rows, 27000 tokens; {skipped} |" in text


def test_card_says_why_a_run_stopped_early(tmp_path: Path) -> None:
    stopped = AdapterTrained(steps=9, rows=12, tokens=500, metrics={"kept_step": 7.0}, stopped_because="Too far.")
    write_card(SPEC, load_recipe("lora"), stopped, tmp_path, kind="policy", licence="apache-2.0", unserved="")
    assert "12 rows, 500 tokens; the weights are those of step 7: Too far. |" in (tmp_path / "README.md").read_text()


def test_card_has_a_price_if_the_device_has_one(tmp_path: Path) -> None:
    text = card(replace(SPEC, hourly_price=3.0, currency="EUR"), tmp_path)
    assert "| cost | 1800 s, 350 tokens/s, peak 1024 MiB; 1.50 EUR at 3.00 EUR per hour |" in text
