"""A base's shape, from its configuration only: the model is built on torch's `meta` device, without memory for weights."""

from pathlib import Path
from typing import Any

from services.training.bases.capabilities import read_capabilities
from services.training.planning.forecast import Shape
from services.training.recipe import Recipe
from tailor.errors import InvalidArgument, Reason


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
    capabilities = read_capabilities(base)
    text = config.get_text_config()
    head = model.get_output_embeddings()
    linear = [
        (name.rpartition(".")[2], module.in_features, module.out_features)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    ]
    sizes = [parameter.numel() for parameter in model.parameters()]
    return Shape(
        parameters=sum(sizes),
        linear=sum(inputs * outputs for _, inputs, outputs in linear),
        largest=max(sizes),
        layers=text.num_hidden_layers,
        width=text.hidden_size,
        inner=_inner_width(text),
        key_width=_key_width(text),
        vocabulary=text.vocab_size,
        context=text.max_position_embeddings,
        targets=tuple(module for module in linear if module[0] in capabilities.targets),
        not_served=capabilities.not_served,
        family=text.model_type,
    )


def _inner_width(config: Any) -> int:
    return int(getattr(config, "intermediate_size", None) or 4 * config.hidden_size)


def _key_width(config: Any) -> int:
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return int(width * (getattr(config, "num_key_value_heads", None) or heads))


def check_recipe(recipe: Recipe, shape: Shape) -> None:
    """Raise InvalidArgument (INVALID_RECIPE) if the recipe needs what the base does not have, naming each such field."""
    wrong = {}
    longest = recipe.batch.max_length
    if longest > shape.context:
        wrong["batch.max_length"] = (
            f"is {longest}, but the base reads at most {shape.context} tokens; lower it, or set it to 0"
        )
    wanted = recipe.adapter.target_modules
    known = sorted({name for name, _, _ in shape.targets})
    if not isinstance(wanted, str) and (missing := sorted(set(wanted) - set(known))):
        wrong["adapter.target_modules"] = f"names {', '.join(missing)}; adapters of the base change {', '.join(known)}"
    if shape.not_served and recipe.adapter.kind != "none" and not recipe.adapter.use_dora and recipe.method != "reward":
        wrong["adapter.kind"] = (
            f"gives an adapter that inference cannot serve, because {shape.not_served}; use the recipe full or dora and add the result "
            "as a base, or use another base"
        )
    if wrong:
        listed = "; ".join(f"{field}: {message}" for field, message in wrong.items())
        raise InvalidArgument(
            Reason.INVALID_RECIPE, f"The recipe does not fit the base. {listed}.", field_violations=wrong
        )
