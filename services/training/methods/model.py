"""The policy model: a base with an adapter to train, and a saved result to load again."""

from pathlib import Path
from typing import Any

from services.training.adapters.inputs import StoredAdapter
from services.training.methods.loading import adapter_options, load_base, prepare_quantised
from services.training.methods.reward_model import load_reward_base
from services.training.recipe import Recipe, check_shape


def trainable_model(base: Path, recipe: Recipe, parent: StoredAdapter | None) -> Any:
    """The model to train: the base with the parent or a fresh adapter, or the base itself.

    The adapter is LoRA (Hu et al. 2021, arXiv:2106.09685) in one of the recipe's variants. Raises InvalidArgument (INVALID_RECIPE) if the
    recipe's adapter does not have the parent's shape.
    """
    from transformers import set_seed

    if parent is not None:
        check_shape(recipe, parent.shape)
    model = load_base(base, recipe)
    if recipe.adapter.kind == "none":
        return model
    if recipe.adapter.kind == "qlora":
        model = prepare_quantised(model)
    # The adapter's initial weights are drawn here, so the same seed gives the same run.
    set_seed(recipe.seed)
    if parent is not None:
        from peft import PeftModel

        return PeftModel.from_pretrained(model, parent.folder, is_trainable=True)
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **adapter_options(recipe, base)))


def load_saved(base: Path, weights: Path, recipe: Recipe, kind: str) -> Any:
    """The saved result of a run, from local safetensors only: an adapter of this kind on its base, or all weights."""
    if recipe.adapter.kind == "none":
        return load_base(weights, recipe)
    from peft import PeftModel

    bare = load_reward_base(base, recipe) if kind == "reward" else load_base(base, recipe)
    # As in training: weights that are not NF4 are in f32.
    return PeftModel.from_pretrained(prepare_quantised(bare) if recipe.adapter.kind == "qlora" else bare, weights)
