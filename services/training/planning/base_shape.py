"""A base's shape, from its configuration only: the model is built on torch's `meta` device, without memory for weights."""

from pathlib import Path
from typing import Any

from services.training.bases.adapted_layers import list_linear
from services.training.bases.capabilities import find_unserved, find_wrong_targets, read_capabilities
from services.training.domain import Capabilities
from services.training.planning.forecast import Shape
from services.training.recipe import Recipe
from tailor.errors import InvalidArgument, Reason
from tailor.layer_paths import has_end


def read_shape(base: Path) -> Shape:
    """The shape of the base in a folder with a config.json. Raises InvalidArgument (BASE_UNREADABLE)."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(base, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise InvalidArgument(
            Reason.BASE_UNREADABLE,
            f"This version cannot read the base's configuration ({type(error).__name__}).",
        ) from None
    text = config.get_text_config()
    layers, targets = list_linear(model), read_capabilities(base).targets
    sizes = [parameter.numel() for parameter in model.parameters()]
    return Shape(
        parameters=sum(sizes),
        linear=sum(inputs * outputs for inputs, outputs in layers.values()),
        largest=max(sizes),
        layers=text.num_hidden_layers,
        width=text.hidden_size,
        inner=_inner_width(text),
        key_width=_key_width(text),
        vocabulary=text.vocab_size,
        context=text.max_position_embeddings,
        targets=tuple((end, *sizes) for path, sizes in layers.items() for end in targets if has_end(path, end)),
        family=text.model_type,
    )


def _inner_width(config: Any) -> int:
    sizes = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    return max(sizes) if isinstance(sizes, list | tuple) else int(sizes)


def _key_width(config: Any) -> int:
    heads = getattr(config, "num_attention_heads", 0)
    if not heads:
        return 0
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return int(width * (getattr(config, "num_key_value_heads", None) or heads))


def check_recipe(recipe: Recipe, shape: Shape, capabilities: Capabilities, max_rank: int) -> None:
    """Raise InvalidArgument (INVALID_RECIPE), naming each wrong field, if the recipe needs what the base does not have, or if inference,
    which serves adapters up to `max_rank`, would refuse its result.
    """
    wrong: dict[str, str] = {}
    longest = recipe.batch.max_length
    if longest > shape.context:
        wrong["batch.max_length"] = (
            f"is {longest}, but the base reads at most {shape.context} tokens; lower it, or set it to 0"
        )
    if recipe.adapter.kind != "none":
        wrong |= find_wrong_targets(capabilities, recipe.adapter.target_modules)
    if recipe.is_served_as_adapter:
        wrong |= find_unserved(capabilities, recipe.adapter.r, max_rank)
    if wrong:
        listed = "; ".join(f"{field}: {message}" for field, message in wrong.items())
        raise InvalidArgument(
            Reason.INVALID_RECIPE, f"The recipe does not fit the base. {listed}.", field_violations=wrong
        )
