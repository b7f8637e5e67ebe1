"""What happens to one family: `python -m bench.bases_family FAMILY FOLDER` takes a tiny base of it through adding, training and verifying.

Prints one JSON object. A process for each family, because some of transformers' classes take memory or time without a limit.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from services.inference.adapters.model_store import VerifiedLibrary, fetch_base
from services.inference.domain import AdapterRef
from services.training.bases import tiny
from services.training.bases.capabilities import OWN, compare, read_capabilities
from services.training.bases.store import fetch_and_ask
from services.training.planning.base_shape import check_recipe, read_shape
from services.training.recipe import load_recipe
from services.training.worker.reload_check import compute_figures
from tailor.errors import TailorError
from tailor.storage.buckets import MODELS
from tests.integration.training_house import rows, store_dataset
from tests.models import make_tiny_base
from tests.training import House, adapter, furnish, train

VOCABULARY = 512
MAX_RANK = 64
TOWER_LAYERS = ("num_hidden_layers", "depth", "encoder_layers", "num_layers")
# What configurations of these families have on hubs, and vLLM needs, but transformers' own defaults lack.
PUBLISHED: dict[str, dict[str, object]] = {
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots1": {"n_routed_experts": 4},
    "glm4_moe": {"head_dim": 16},
    "glm4_moe_lite": {"first_k_dense_replace": 1},
    "hunyuan_v1_dense": {"head_dim": 16},
    "hunyuan_v1_moe": {"head_dim": 16},
    "hy_v3": {"first_k_dense_replace": 1},
    "lfm2": {"block_dim": 64, "conv_dim": 64},
    "minimax_m2": {"rotary_dim": 16},
}
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


@dataclass(frozen=True)
class FamilyFound:
    """What was found of a family. Each step is `yes`, a sentence that says why not, or empty if it was not reached."""

    family: str
    name: str
    made: str = ""
    added: str = ""
    trained: str = ""
    verified: str = ""
    attention: str = ""
    packed: bool = False
    not_served: str = ""
    targets: tuple[str, ...] = ()
    attention_difference: float = 0.0
    packed_difference: float = 0.0


def make_base(family: str, name: str, folder: Path) -> Path:
    """Save a tiny base of the family, with a tokenizer, as a hub would serve it. Raises what transformers raises."""
    import torch
    import transformers

    make_tiny_base(folder, [row["messages"][2]["content"] for row in rows()], vocabulary=320)
    kept = {file: (folder / file).read_bytes() for file in TOKENIZER if (folder / file).exists()}
    config = tiny.shrink(transformers.AutoConfig.for_model(family, **PUBLISHED.get(family, {})))
    text = config.get_text_config()
    _cut_towers(config, text)
    for size in ("vocab_size", "vocab_size_per_layer_input", "n_vocab"):
        if isinstance(getattr(text, size, None), int):
            setattr(text, size, VOCABULARY)
    for written in folder.iterdir():
        written.unlink()
    torch.manual_seed(0)
    model = getattr(transformers, name)._from_config(config, attn_implementation="eager", dtype=torch.bfloat16)
    model.save_pretrained(folder)
    for file, content in kept.items():
        (folder / file).write_bytes(content)
    return folder


def _cut_towers(config: Any, text: Any) -> None:
    """Leave one layer to the parts for images and sound, of which nothing is trained."""
    for tower in (getattr(config, name, None) for name in config.sub_configs):
        for layers in TOWER_LAYERS if tower is not text else ():
            if isinstance(getattr(tower, layers, None), int):
                setattr(tower, layers, 1)


def try_family(family: str, name: str, folder: Path) -> FamilyFound:
    """Make a tiny base of the family, add it, train an adapter with the default targets, and verify that as inference does."""
    found = FamilyFound(family, name)
    found = replace(found, made=_outcome(lambda: make_base(family, name, folder / "base")))
    if found.made != "yes":
        return found
    houses: list[House] = []
    found = replace(
        found, added=_outcome(lambda: houses.append(furnish(folder, f"path:{folder / 'base'}", fetch=fetch_and_ask)))
    )
    if not houses:
        return found
    found = _describe(found, houses[0], folder)
    verified: list[str] = []
    found = replace(found, trained=_outcome(lambda: verified.append(_train(houses[0], folder))))
    return replace(found, verified=verified[0] if verified else "")


def _outcome(step: Callable[[], Any]) -> str:
    """`yes`, or why not in words: those of an error of ours, or the kind of another."""
    try:
        step()
    except TailorError as error:
        return f"{error.reason}: {error.message}"
    except AssertionError as failed:
        return f"the run failed: {failed}"
    except Exception as error:
        return f"{type(error).__name__} (not in words of ours): {str(error)[:200]}"
    return "yes"


def _describe(found: FamilyFound, house: House, folder: Path) -> FamilyFound:
    from transformers import AutoConfig

    base = fetch_base(house.store, house.base.name, folder / "cache").folder
    capabilities = read_capabilities(base)
    config = tiny.shrink(AutoConfig.from_pretrained(base))
    used = compare(config, tiny.build(config, OWN))[capabilities.attention]
    return replace(
        found,
        attention=capabilities.attention,
        packed=capabilities.packed,
        not_served=capabilities.not_served_because,
        targets=capabilities.targets,
        attention_difference=used.own,
        packed_difference=used.packed if capabilities.packed else 0.0,
    )


def _train(house: House, folder: Path) -> str:
    """Plan, train for two steps, reload and check the adapter, and verify it. Raises AssertionError with the run's failure."""
    settings = load_recipe("tiny").model_dump()
    base = fetch_base(house.store, house.base.name, folder / "cache").folder
    check_recipe(load_recipe("tiny"), read_shape(base), read_capabilities(base), MAX_RANK)
    recipe = type(load_recipe("tiny")).model_validate({**settings, "limit": {**settings["limit"], "max_steps": 2}})
    dataset = store_dataset(house.store, train=rows(), held_out=rows(4))
    manifest = adapter(train(house, "run", recipe, dataset, reload=compute_figures))
    library = VerifiedLibrary(
        house.store, fetch_base(house.store, house.base.name, folder / "cache"), folder / "cache", MAX_RANK
    )
    described = json.loads(house.store.read(MODELS, manifest.key))
    if described["not_served_because"]:
        return str(described["not_served_because"])
    return _outcome(lambda: library.fetch(AdapterRef(manifest.sha256, manifest)))


if __name__ == "__main__":
    print(json.dumps(asdict(try_family(sys.argv[1], sys.argv[2], Path(sys.argv[3])))))
