"""Plans from real rows, a real tokenizer and a base's configuration, without weights."""

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from services.training.adapters.child_process import run_child
from services.training.bases.capabilities import write_capabilities
from services.training.bases.files import load_tokenizer
from services.training.domain import Base, Run, RunKey, RunState, Stage
from services.training.methods.rows import pack
from services.training.methods.sft import count_steps
from services.training.planning import forecaster, loads
from services.training.planning.base_shape import read_shape
from services.training.planning.devices import Device, memory_limit
from services.training.planning.forecast import Load, working_seconds
from services.training.planning.planner import MODULE, StoredPlanner
from services.training.plans import HourLimits, Plan, RunReport, limit_hours
from services.training.recipe import FOLDER, Recipe, load_recipe
from tailor.errors import FailedPrecondition, InvalidArgument
from tailor.hardware import computes_in_bf16
from tailor.storage.buckets import MODELS
from tailor.storage.ref import Ref
from tests.datasets import store_dataset
from tests.models import WITHOUT_AVX512, make_tiny_base
from tests.unit.training.fakes import START, read_encoded
from tests.unit.training.stores import FileStore

pytestmark = pytest.mark.integration

CPU = Device("a CPU", 1, 8 * 10**9, 0.1, gpu=False, here=False)
Paths = tuple[Path, ...]
WORDS = "the house style of a report is plain and it names what was found and what should be done next by whom".split()


def sentence(number: int, length: int) -> str:
    return " ".join(WORDS[(number * 5 + place * 3) % len(WORDS)] for place in range(length))


def chats(count: int = 40) -> list[dict[str, Any]]:
    return [
        {
            "row_id": f"row_{number:05}",
            "messages": [
                {"role": "user", "content": sentence(number, 8)},
                {"role": "assistant", "content": sentence(number + 1, 10 + number % 9)},
            ],
        }
        for number in range(count)
    ]


def pairs(count: int = 20) -> list[dict[str, Any]]:
    return [
        {
            "row_id": f"row_{number:05}",
            "messages": [{"role": "user", "content": sentence(number, 8)}],
            "chosen": sentence(number, 6),
            "rejected": sentence(number, 12),
        }
        for number in range(count)
    ]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_tiny_base(
        tmp_path_factory.mktemp("tiny"), [sentence(number, 40) for number in range(9)], vocabulary=320
    )
    write_capabilities(folder)
    # A plan that read the weights would fail.
    (folder / "model.safetensors").unlink()
    return folder


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Paths]:
    folder = tmp_path_factory.mktemp("rows")
    parquet.write_table(pa.Table.from_pylist(pairs()), folder / "preference")
    # Two files, as of a larger dataset.
    parquet.write_table(pa.Table.from_pylist(chats()[:30]), folder / "sft")
    parquet.write_table(pa.Table.from_pylist(chats()[30:]), folder / "sft-2")
    return {"sft": (folder / "sft", folder / "sft-2"), "preference": (folder / "preference",)}


def recipe(name: str = "tiny", **changes: Any) -> Recipe:
    settings = load_recipe(name).model_dump()
    for field, value in changes.items():
        settings[field] = {**settings[field], **value} if isinstance(value, dict) and settings[field] else value
    return Recipe.model_validate(settings)


def request_for(
    base: Path, stages: Sequence[tuple[Recipe, Paths]], device: Device = CPU, **recipes: Recipe
) -> dict[str, Any]:
    return {
        "base": str(base),
        "stages": [{"recipe": chosen.model_dump(), "rows": [str(path) for path in paths]} for chosen, paths in stages],
        "recipes": {name: known.model_dump() for name, known in recipes.items()},
        "device": asdict(device),
        "rollout_engine": "generate",
        "max_rank": 32,
    }


def forecast(
    base: Path, stages: Sequence[tuple[Recipe, Paths]], device: Device = CPU, **recipes: Recipe
) -> dict[str, Any]:
    answer = forecaster.plan(request_for(base, stages, device, **recipes))
    return {**answer, **answer["plan"]}


def test_rows_tokens_and_steps_equal_those_of_training(tiny: Path, rows: dict[str, Paths]) -> None:
    chosen = recipe(limit={"epochs": 2, "max_steps": 0, "max_tokens": 0})
    result = forecast(tiny, [(chosen, rows["sft"])])
    encoded = read_encoded(rows["sft"], load_tokenizer(tiny))
    bins = pack(encoded, chosen.batch.tokens, chosen.seed)
    assert (result["rows"], result["steps"]) == (40, count_steps(bins, chosen))
    # Two epochs train on each token twice.
    assert result["tokens"] == pytest.approx(2 * sum(len(row.tokens) for row in encoded), rel=0.01)
    device = "a CPU" if computes_in_bf16() else "a CPU, f32 in place of bf16"
    assert (result["refusal"], result["devices"], result["device"]) == ("", 1, device)


def test_plan_for_a_processor_that_would_emulate_bf16_is_in_f32_and_says_so(
    tiny: Path, rows: dict[str, Paths], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "request.json"
    wanted, plain = recipe(precision="bf16"), recipe(precision="f32")
    path.write_text(json.dumps(request_for(tiny, [(wanted, rows["sft"])])), encoding="utf-8")
    for name, value in WITHOUT_AVX512.items():
        monkeypatch.setenv(name, value)
    result = run_child(MODULE, [str(path)], 120, "recipe")["plan"]
    assert result["device"] == "a CPU, f32 in place of bf16"
    assert result["memory_bytes"] == forecast(tiny, [(plain, rows["sft"])])["memory_bytes"]


def test_a_base_that_was_read_before_is_forecast_alike_without_torch(
    tiny: Path, rows: dict[str, Paths], tmp_path: Path
) -> None:
    kinds = {"tiny": "sft", "dpo": "preference", "reward": "preference", "rloo": "preference"}
    request = request_for(tiny, [(recipe(name, batch={"max_length": 0}), rows[kind]) for name, kind in kinds.items()])
    first = forecaster.plan(request)
    path = tmp_path / "request.json"
    path.write_text(json.dumps({**request, "known": first["known"]}), encoding="utf-8")
    # Torch is hidden there, so an import of it would fail.
    assert run_child(MODULE, [str(path)], 120, "recipe") == json.loads(json.dumps(first))


def test_speed_here_is_that_of_the_bases_own_layers(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shape, chosen = read_shape(tiny), recipe()
    assert forecaster.measure_teraflops(tiny, shape, chosen) > 0

    def take(model: Any, tokens: int) -> float:
        assert tokens == chosen.batch.tokens
        return 0.5 + 0.25 * len(model.base_model.model.model.layers)

    monkeypatch.setattr(forecaster, "_time_step", take)
    monkeypatch.setattr(forecaster, "TIMED_SECONDS", 0.0)
    for layers, seconds in ((1, 0.75), (40, 10.5)):
        deep = replace(shape, layers=layers)
        work = Load(1, 1, tokens=chosen.batch.tokens, learned=chosen.batch.tokens // 2, trained=chosen.batch.tokens)
        speed = forecaster.measure_teraflops(tiny, deep, chosen)
        # With a twentieth for measuring held-out loss.
        assert working_seconds(chosen, deep, work, speed) == pytest.approx(1.05 * seconds)


def test_base_that_cannot_be_built_in_part_is_forecast_by_products(
    tiny: Path, rows: dict[str, Paths], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> float:
        raise ValueError("this architecture has no first layers")

    monkeypatch.setattr(forecaster, "measure_teraflops", fail)
    here = Device("", 1, 0, 0.0, gpu=False, here=True)
    assert forecast(tiny, [(recipe(), rows["sft"])], here)["working_seconds"] > 0
    stated = forecast(tiny, [(recipe(), rows["sft"])], replace(here, teraflops=0.1))
    elsewhere = forecast(tiny, [(recipe(), rows["sft"])])
    assert stated["working_seconds"] == elsewhere["working_seconds"]


def test_stages_add_up_and_the_largest_decides_the_memory(tiny: Path, rows: dict[str, Paths]) -> None:
    sft, dpo = recipe(), recipe(method="dpo", adapter={"dropout": 0.0}, batch={"tokens": 512, "max_length": 256})
    first, second = forecast(tiny, [(sft, rows["sft"])]), forecast(tiny, [(dpo, rows["preference"])])
    both = forecast(tiny, [(sft, rows["sft"]), (dpo, rows["preference"])])
    assert both["steps"] == first["steps"] + second["steps"]
    assert both["tokens"] == first["tokens"] + second["tokens"]
    assert both["memory_bytes"] == max(first["memory_bytes"], second["memory_bytes"])


def test_a_plan_chooses_rate_and_steps_by_base_data_and_device(tiny: Path, rows: dict[str, Paths]) -> None:
    chosen = recipe(batch={"tokens": 0}, optimizer={"learning_rate": 0.0}, limit={"epochs": 100, "max_steps": 0})
    stages = [(chosen, rows["sft"])]
    gpu = Device("a GPU", 1, 0, 1.0, gpu=True, here=False)

    def settings(device: Device) -> dict[str, Any]:
        found: dict[str, Any] = forecaster.plan(request_for(tiny, stages, device))["stages"][0]["settings"]
        return found

    # Its alpha of 8 is a quarter of that of the fit.
    assert settings(CPU) == {
        "learning_rate": pytest.approx(4 * 5e-4 * (2000 / 64) ** 0.781),
        "tokens": 512,
        "accumulation": 1,
        "gradient_checkpointing": False,
    }
    whole = settings(gpu)
    assert (whole["tokens"], whole["accumulation"], whole["gradient_checkpointing"]) == (1024, 1, False)
    # So little memory that not even one layer at a time fits: the way with the least memory, and a refusal.
    least = settings(replace(gpu, memory_bytes=1))
    assert (least["tokens"], least["gradient_checkpointing"]) == (1024, True)


def test_generated_answers_and_trials_of_a_sweep_count(tiny: Path, rows: dict[str, Paths]) -> None:
    settings: dict[str, Any] = {
        "batch": {"tokens": 256, "max_length": 256},
        "limit": {"epochs": 1, "max_steps": 3, "max_tokens": 0},
    }
    rloo = recipe(method="rloo", rewards=[{"kind": "length", "words": 5}], **settings)
    written = forecast(tiny, [(rloo, rows["preference"])])
    assert written["steps"] == 3
    assert written["tokens"] > 3 * rloo.rollout.prompts * rloo.rollout.answers * rloo.rollout.max_new_tokens
    split = rloo.model_copy(update={"batch": rloo.batch.model_copy(update={"accumulation": 4})})
    parted = forecast(tiny, [(split, rows["preference"])])
    assert (parted["steps"], parted["tokens"]) == (3, written["tokens"])
    assert parted["memory_bytes"] < written["memory_bytes"]
    once = forecast(tiny, [(recipe(**settings), rows["sft"])])
    sweep = recipe(method="sweep", sweep={"factors": [1.0, 0.1], "share": 0.5}, **settings)
    assert forecast(tiny, [(sweep, rows["sft"])])["steps"] > once["steps"]


def test_misfit_is_explained_in_gigabytes_with_the_nearest_recipe(tiny: Path, rows: dict[str, Paths]) -> None:
    large = recipe(batch={"tokens": 1024, "max_length": 1024})
    small = recipe(batch={"tokens": 64, "max_length": 64})
    refused = forecast(tiny, [(large, rows["sft"])], replace(CPU, memory_bytes=10**9), small=small)
    assert "but there are 1.0 GB (a CPU)" in refused["refusal"]
    assert refused["nearest_recipe"] == ""
    gpu = replace(CPU, gpu=True)
    needs = [forecast(tiny, [(first, rows["sft"])], gpu)["memory_bytes"] * 1.1 + 10**9 for first in (small, large)]
    between = replace(gpu, memory_bytes=round(sum(needs) / 2))
    result = forecast(tiny, [(large, rows["sft"])], between, small=small, large=large)
    assert result["refusal"]
    assert result["nearest_recipe"] == "small"
    assert forecast(tiny, [(large, rows["sft"])], replace(gpu, memory_bytes=0))["refusal"] == ""


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"batch": {"tokens": 4000, "max_length": 4000}}, "batch.max_length"),
        ({"adapter": {"target_modules": ["q_proj", "wo"]}}, "adapter.target_modules"),
    ],
)
def test_recipe_that_the_base_cannot_follow_is_rejected(
    tiny: Path, rows: dict[str, Paths], changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        forecast(tiny, [(recipe(**changes), rows["sft"])])
    assert list(refused.value.field_violations) == [field]


def test_dataset_without_a_row_that_fits_is_rejected(tiny: Path, rows: dict[str, Paths]) -> None:
    with pytest.raises(InvalidArgument) as refused:
        forecast(tiny, [(recipe(batch={"tokens": 16, "max_length": 16}), rows["sft"])])
    assert refused.value.reason == "NO_ROWS"


def test_large_dataset_is_counted_from_some_of_its_rows(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "large"
    parquet.write_table(pa.Table.from_pylist(chats(5000)), path)
    lengths = loads.read_lengths([path], "sft", load_tokenizer(tiny), 2048)
    assert len(lengths.chats) <= loads.READ_ROWS
    chosen = recipe(limit={"epochs": 1, "max_steps": 0, "max_tokens": 0})
    load = loads.count(lengths, chosen)
    every = read_encoded([path], load_tokenizer(tiny))
    assert load.rows == 5000
    assert load.trained == pytest.approx(sum(len(row.tokens) for row in every), rel=0.02)


def test_rows_over_the_limit_are_counted_and_those_not_read_still_need_memory(tiny: Path, tmp_path: Path) -> None:
    path, tokenizer = tmp_path / "long", load_tokenizer(tiny)
    many = [{**row, "tokens": 900 if number == 4000 else 60} for number, row in enumerate(chats(5000))]
    many[0]["messages"][1]["content"] = "word " * 1500
    parquet.write_table(pa.Table.from_pylist(many), path)
    lengths = loads.read_lengths([path], "sft", tokenizer, 1024)
    load = loads.count(lengths, recipe(batch={"tokens": 128, "max_length": 0}))
    assert load.tokens == 900
    some = loads.read_lengths([path], "sft", tokenizer, 1024)
    short = loads.count(some, recipe(batch={"tokens": 128, "max_length": 48}))
    assert short.skipped > 0
    assert short.rows + short.skipped == 5000
    assert short.tokens <= 128


def test_memory_limit_respects_the_cgroup(tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    limit.write_text("123456\n")
    assert memory_limit((limit, tmp_path / "missing")) == 123456
    limit.write_text("max\n")
    assert memory_limit((limit,)) > 10**8


def stored(store: FileStore, tiny: Path) -> tuple[Base, Ref]:
    """Store a base without its weights, and a dataset."""
    files = []
    for file in sorted(tiny.iterdir()):
        ref = store.put_file(MODELS, f"bases/files/{file.name}", file)
        files.append({"path": file.name, "key": ref.key, "sha256": ref.sha256, "size_bytes": ref.size_bytes})
    files.append({"path": "model.safetensors", "key": "bases/files/none", "sha256": "0", "size_bytes": 1})
    manifest = store.put(MODELS, "bases/tiny/manifest.json", json.dumps({"files": files}).encode())
    ref, _ = store_dataset(store, {"train": chats()}, rows_per_file=15)
    return Base("tiny", manifest.sha256, "unknown", 1, 1, manifest), ref


@pytest.mark.slow
def test_planner_uses_the_speed_of_earlier_runs(tiny: Path, tmp_path: Path) -> None:
    store = FileStore(tmp_path / "store")
    base, dataset = stored(store, tiny)
    stage = Stage("tiny", "sft", recipe().to_json(), "sft", dataset)
    waiting = Stage("later", "dpo", recipe(method="dpo", adapter={"dropout": 0.0}).to_json(), "preference")
    recent: list[Run] = []
    planner = StoredPlanner(store, lambda: recent, FOLDER, CPU, tmp_path / "plans", lambda: START)
    plan = planner.plan(base, (stage, waiting))
    assert (plan.rows, plan.fits, plan.seconds_from, plan.create_time) == (40, True, "estimated", START)
    assert plan.steps > 0 < plan.memory_bytes < plan.device_memory_bytes
    assert not list((tmp_path / "plans").iterdir())
    assert planner.plan(base, (stage, waiting)) == plan

    report = RunReport(
        rows=40,
        tokens=100_000,
        steps=8,
        memory_bytes=1,
        seconds=10_000.0,
        price=plan.price,
        memory_error=0,
        seconds_error=0,
        tokens_error=0,
    )
    key = RunKey("reports", dataset.sha256, "tiny", "r")
    past = Run("run_1", key, "tiny", (stage, waiting), RunState.SUCCEEDED, START, base_digest=base.digest)
    past = replace(past, plan=plan, report=report)
    recent.extend([past, replace(past, base_digest="another")])
    measured = planner.plan(base, (stage, waiting))
    assert measured.seconds_from == "measured"
    # The earlier run had ten tokens per second.
    assert measured.seconds == pytest.approx(plan.tokens / 10, rel=0.5, abs=40)
    assert measured.seconds > plan.seconds


@pytest.mark.slow
def test_the_proposed_number_of_tokens_leads_to_a_forecast_within_the_limit(tiny: Path, tmp_path: Path) -> None:
    store = FileStore(tmp_path / "store")
    base, _ = stored(store, tiny)
    # As synthetic counts them: with another template, so not exactly as many as training counts.
    drawn = [{**row, "tokens": 20 + len(row["messages"][1]["content"].split())} for row in chats(2500)]
    whole, _ = store_dataset(store, {"train": drawn})
    chosen = recipe(limit={"epochs": 2, "max_steps": 0, "max_tokens": 0}).to_json()
    # So slow that the work takes far longer than what is around it.
    slow = replace(CPU, teraflops=1e-6)
    planner = StoredPlanner(store, list, FOLDER, slow, tmp_path / "plans", lambda: START)

    def plan(dataset: Ref) -> Plan:
        return planner.plan(base, [Stage("tiny", "sft", chosen, "sft", dataset)])

    long = plan(whole)
    limits = HourLimits(cpu=(long.fixed_seconds + (long.seconds - long.fixed_seconds) / 3) / 3600)
    proposed = limit_hours(long, limits, 0.0).fitting_train_tokens
    draws, kept, used = random.Random(1), [], 0
    for row in draws.sample(drawn, len(drawn)):
        if used + row["tokens"] <= proposed:
            kept.append(row)
            used += row["tokens"]
    small, _ = store_dataset(store, {"train": kept})
    fitting = limit_hours(plan(small), limits, 0.0)
    assert not fitting.needs_approval
    # Not by giving most of the limit away.
    assert fitting.device_hours > 0.7 * limits.cpu


def test_dataset_without_rows_is_rejected(tiny: Path, tmp_path: Path) -> None:
    store = FileStore(tmp_path / "store")
    base, _ = stored(store, tiny)
    empty, _ = store_dataset(store, {"train": []})
    planner = StoredPlanner(store, list, FOLDER, CPU, tmp_path / "plans", lambda: START)
    with pytest.raises(FailedPrecondition):
        planner.plan(base, [Stage("tiny", "sft", recipe().to_json(), "sft", empty)])
