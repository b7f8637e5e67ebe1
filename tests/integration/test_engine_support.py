"""Adapters of families with other layers than Llama's: trained with `all-linear`, verified as inference does, and served by vLLM."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from services.inference.adapters.model_store import VerifiedLibrary, fetch_base
from services.inference.domain import AdapterRef
from services.training.bases import engine_support
from services.training.bases.adapted_layers import name_layers
from services.training.bases.capabilities import choose_targets, read_capabilities, write_capabilities
from services.training.bases.engine_support import EngineSupport, start_engine
from services.training.domain import Capabilities
from services.training.methods.model import trainable_model
from services.training.planning.base_shape import check_recipe, read_shape
from services.training.recipe import Recipe, load_recipe
from services.training.worker.results import not_served_because
from tailor.engine.environment import prepare_environment
from tailor.errors import FailedPrecondition, InvalidArgument
from tailor.layer_paths import has_end
from tailor.storage.buckets import MODELS
from tailor.storage.memory import MemoryStore
from tests.integration.test_inference_engines import publish, publish_adapter
from tests.models import make_tiny_base

pytestmark = pytest.mark.integration

SIZES: dict[str, object] = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}
HEADS: dict[str, object] = {"head_dim": 64}
EXPERTS: dict[str, object] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
FAMILIES: dict[str, dict[str, object]] = {"phi3": {}, "glm4": HEADS, "qwen3_moe": HEADS | EXPERTS}
needs_vllm = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")


def make_base(folder: Path, family: str) -> Path:
    """A tiny base of a family, with random weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    make_tiny_base(folder, ["The control envelope holds and the friction ledger is short."], vocabulary=400)
    vocabulary = AutoConfig.from_pretrained(folder).vocab_size
    config = AutoConfig.for_model(family, **SIZES, **FAMILIES[family], vocab_size=vocabulary)
    config.update({"bos_token_id": 1, "eos_token_id": 2})
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    return folder


def lora(**adapter: object) -> Recipe:
    settings = load_recipe("lora").model_dump()
    return Recipe.model_validate(settings | {"precision": "f32", "adapter": settings["adapter"] | {"r": 4} | adapter})


def train(base: Path, folder: Path) -> Path:
    """An adapter by one step on all targets, whose matrices then change answers strongly."""
    import torch

    model: Any = trainable_model(base, lora(), None)
    tokens = torch.arange(4, 36)[None]
    model(input_ids=tokens, labels=tokens).loss.backward()
    generator = torch.Generator().manual_seed(0)
    for name, weights in model.named_parameters():
        if "lora_B" in name:
            assert weights.grad is not None and bool(weights.grad.abs().sum() > 0), name
            weights.data.normal_(0.0, 0.3, generator=generator)
    model.save_pretrained(folder)
    return folder


def store_base(base: Path, adapter: Path, cache: Path) -> tuple[VerifiedLibrary, AdapterRef, tuple[str, ...]]:
    """A base and its adapter as inference fetches them, and the layers that adapters may change."""
    store = MemoryStore()
    data, _ = publish(store, base, "bases", {"name": "tiny"})
    store.put(MODELS, "bases/tiny/manifest.json", data)
    fetched = fetch_base(store, "tiny", cache)
    (adapter / "README.md").unlink(missing_ok=True)
    reference = publish_adapter(store, adapter, fetched.digest)
    return VerifiedLibrary(store, fetched, cache, 256), reference, fetched.layers.targets


@contextmanager
def engine_of(base: Path, targets: tuple[str, ...]) -> Iterator[Any]:
    from services.inference.engines.vllm_engine import VllmEngine

    prepare_environment(1, 1)
    engine = VllmEngine(base, targets=targets, context_length=128, max_loras=1, max_lora_rank=8, max_concurrent=2)
    try:
        yield engine
    finally:
        engine.close()


def reference_score(base: Path, adapter: Path | None, tokens: tuple[int, ...], prompt: int) -> float:
    """The mean log-probability of the tokens after the prompt, by transformers and peft."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, adapter) if adapter else model
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([tokens])).logits[0, :-1]
    known = torch.log_softmax(logits.float(), dim=-1).gather(1, torch.tensor(tokens[1:])[:, None])
    return float(known[prompt - 1 :].mean())


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_of_all_linear_layers_passes_inferences_checks(family: str, tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", family)
    write_capabilities(base)
    adapter = train(base, tmp_path / "adapter")
    library, reference, _ = store_base(base, adapter, tmp_path / "cache")
    assert library.fetch(reference).is_dir()


def test_experts_and_routers_are_left_alone_and_named(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "qwen3_moe")
    write_capabilities(base)
    found = read_capabilities(base)
    assert set(found.targets) == {"q_proj", "k_proj", "v_proj", "o_proj"}
    assert "experts" in found.left_out


def test_a_base_without_served_adapters_is_added_and_an_adapter_run_refused_at_the_plan(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "phi3")
    adapter = train(base, tmp_path / "adapter")
    write_capabilities(base, ask=lambda *_: EngineSupport((), refusal="vLLM serves no adapters of Phi3ForCausalLM."))
    found, shape = read_capabilities(base), read_shape(base)
    with pytest.raises(InvalidArgument, match=r"adapter\.kind: .*serves no adapters of Phi3ForCausalLM\.$") as refused:
        check_recipe(lora(), shape, found, 32)
    assert list(refused.value.field_violations) == ["adapter.kind"]
    assert "serves no adapters" in not_served_because("policy", lora(), found)
    # What is merged can be trained.
    check_recipe(lora(use_dora=True), shape, found, 32)
    check_recipe(lora(kind="none"), shape, found, 32)
    library, reference, targets = store_base(base, adapter, tmp_path / "cache")
    with pytest.raises(FailedPrecondition, match="serves no adapters"):
        library.fetch(reference)
    assert targets == ()


def test_a_rank_that_inference_does_not_serve_is_refused_at_the_plan(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "phi3")
    write_capabilities(base)
    found, shape = read_capabilities(base), read_shape(base)
    check_recipe(lora(r=64), shape, found, 64)
    with pytest.raises(InvalidArgument, match=r"adapter\.r: is 64, but inference serves at most 32.*MAX_LORA_RANK"):
        check_recipe(lora(r=64), shape, found, 32)


def test_layers_are_named_by_the_shortest_ends_that_no_other_has() -> None:
    layers = ["model.layers.0.mlp.up", "model.layers.1.shared.up", "model.layers.1.experts.0.up", "model.layers.0.q"]
    assert name_layers(layers, layers) == ("up", "q")
    assert name_layers([layers[1], layers[3]], layers) == ("shared.up", "q")
    # Only its number tells it from others: the base has layers of other numbers.
    assert name_layers([layers[2]], layers) == ()
    assert has_end("a.shared.up", "shared.up") and not has_end("a.unshared.up", "shared.up")


def test_names_of_a_recipe_mean_all_targets_that_end_with_them() -> None:
    found = Capabilities("sdpa", "sdpa", True, ("q_proj", "shared.up_proj"), (), 256, "")
    assert choose_targets(found, ("up_proj",)) == ["shared.up_proj"]
    assert choose_targets(found, "all-linear") == ["q_proj", "shared.up_proj"]
    with pytest.raises(InvalidArgument, match="names down_proj"):
        choose_targets(found, ("down_proj", "q_proj"))


# The process of an engine which once cannot inspect a class that it can build.
REFUSES_ONCE = """
import json, pathlib, sys
asked = pathlib.Path(json.loads(sys.stdin.read())["layers"]["asked"])
print(json.dumps({"layers": ["q"] if asked.exists() else [], "refusal": "" if asked.exists() else "Not inspected."}))
asked.touch()
"""


@needs_vllm
def test_a_refusal_of_the_engine_is_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import LlamaConfig

    (tmp_path / "refuses_once.py").write_text(REFUSES_ONCE, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(engine_support, "MODULE", "refuses_once")
    layers: Any = {"asked": str(tmp_path / "asked")}
    assert start_engine()(LlamaConfig(), layers) == EngineSupport(("q",))
    # The first child of this one answers already.
    assert start_engine()(LlamaConfig(), layers) == EngineSupport(("q",))


@pytest.mark.release
@needs_vllm
@pytest.mark.parametrize(
    ("family", "targets"),
    [
        ("phi3", {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}),
        # vLLM takes gate_proj and up_proj of this class, which transformers keeps in one layer.
        ("glm4", {"q_proj", "k_proj", "v_proj", "o_proj", "down_proj"}),
    ],
)
def test_vllm_serves_the_layers_that_it_named_like_the_trainer(family: str, targets: set[str], tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", family)
    write_capabilities(base, ask=start_engine())
    found = read_capabilities(base)
    assert (set(found.targets), found.not_served_because) == (targets, "")
    adapter = train(base, tmp_path / "adapter")
    library, reference, served = store_base(base, adapter, tmp_path / "cache")
    tokens, prompt = tuple(range(4, 36)), 8
    with engine_of(base, served) as engine:
        engine.load("a", library.fetch(reference))
        for name, folder in (("", None), ("a", adapter)):
            score = engine.score_tokens(tokens, prompt, name).log_probability / (len(tokens) - prompt)
            assert score == pytest.approx(reference_score(base, folder, tokens, prompt), abs=0.01), name
    bare, adapted = (reference_score(base, folder, tokens, prompt) for folder in (None, adapter))
    assert abs(bare - adapted) > 0.025
