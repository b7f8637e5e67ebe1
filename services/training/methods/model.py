"""Loading a base and making it trainable."""

from pathlib import Path
from typing import Any

from services.training.adapters.inputs import StoredAdapter
from services.training.methods.packed_attention import SEGMENTED, register_attention
from services.training.methods.parents import check_parent
from services.training.recipe import Recipe
from tailor.errors import InvalidArgument, Reason


def load_tokenizer(base: Path) -> Any:
    """The base's tokenizer, from local files alone."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base, local_files_only=True, trust_remote_code=False)


def load_base(base: Path, recipe: Recipe) -> Any:
    """The base in the recipe's precision, from local safetensors alone."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(base, **load_options(recipe))


def load_options(recipe: Recipe, skipped: str = "lm_head") -> dict[str, Any]:
    """How a base is loaded: in the recipe's precision, all but the layer named `skipped` in NF4 for QLoRA, from local safetensors alone."""
    import torch

    options: dict[str, Any] = {"dtype": torch.bfloat16 if recipe.precision == "bf16" else torch.float32}
    if recipe.adapter.kind == "qlora":
        options["quantization_config"] = _nf4(torch.float32 if recipe.precision == "f32" else torch.bfloat16, skipped)
    elif torch.cuda.is_available():
        options["device_map"] = {"": torch.cuda.current_device()}
    register_attention()
    return {
        **options,
        "local_files_only": True,
        "trust_remote_code": False,
        "use_safetensors": True,
        "attn_implementation": SEGMENTED,
    }


def _nf4(compute: Any, skipped: str) -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
        llm_int8_skip_modules=[skipped],
    )


def trainable_model(base: Path, recipe: Recipe, parent: StoredAdapter | None) -> Any:
    """The model to train: the base under the parent or a fresh adapter, or the base itself.

    InvalidArgument (INVALID_RECIPE) where the recipe's adapter is not shaped as the parent.
    """
    from transformers import set_seed

    if parent is not None:
        check_parent(recipe, parent)
    model = load_base(base, recipe)
    if recipe.adapter.kind == "none":
        return model
    if recipe.adapter.kind == "qlora":
        model = quantised(model)
    # The adapter's start is drawn here, so the same seed gives the same run.
    set_seed(recipe.seed)
    if parent is not None:
        from peft import PeftModel

        return PeftModel.from_pretrained(model, parent.folder, is_trainable=True)
    from peft import LoraConfig, get_peft_model

    check_targets(model, recipe)
    return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **adapter_options(recipe)))


def check_targets(model: Any, recipe: Recipe) -> None:
    """InvalidArgument (INVALID_RECIPE) where the recipe names a layer that the base does not have, or that no adapter may change."""
    import torch

    linear = {
        name.rpartition(".")[2]
        for name, layer in model.base_model.named_modules()
        if isinstance(layer, torch.nn.Linear)
    }
    targets = recipe.adapter.target_modules
    if targets != "all-linear" and not set(targets) <= linear:
        message = f"names {', '.join(sorted(set(targets) - linear))}; the base has {', '.join(sorted(linear))}"
        raise InvalidArgument(
            Reason.INVALID_RECIPE,
            f"The recipe does not fit its base. adapter.target_modules: {message}.",
            field_violations={"adapter.target_modules": message},
        )


def load_saved(base: Path, weights: Path, recipe: Recipe, kind: str) -> Any:
    """What a run saved, from local safetensors alone: an adapter of this kind on its base, or all weights."""
    if recipe.adapter.kind == "none":
        return load_base(weights, recipe)
    from peft import PeftModel

    from services.training.methods.reward_model import load_reward_base

    bare = load_reward_base(base, recipe) if kind == "reward" else load_base(base, recipe)
    # As it was trained on: what is not NF4 is kept in f32.
    return PeftModel.from_pretrained(quantised(bare) if recipe.adapter.kind == "qlora" else bare, weights)


def quantised(model: Any) -> Any:
    """An NF4 base made ready to be trained on."""
    from bitsandbytes.nn import Linear4bit
    from peft import prepare_model_for_kbit_training

    for layer in model.modules():
        if isinstance(layer, Linear4bit):
            # bitsandbytes 0.50's quick way without gradients on AVX-512: the same weights answer otherwise in one process in two.
            layer.support_avx512bf16_for_cpu = False
    return prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)


def keep_in_f32(model: Any) -> None:
    """What is trained on an NF4 base, in f32 as on any other: trl's trainers turn it into bf16, in which small steps are lost."""
    if getattr(model, "is_loaded_in_4bit", False):
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()


def adapter_options(recipe: Recipe) -> dict[str, Any]:
    """The recipe's adapter as peft names it."""
    targets = recipe.adapter.target_modules
    return {
        "r": recipe.adapter.r,
        "lora_alpha": recipe.adapter.alpha,
        "lora_dropout": recipe.adapter.dropout,
        "target_modules": targets if isinstance(targets, str) else list(targets),
        "use_rslora": recipe.adapter.use_rslora,
        "use_dora": recipe.adapter.use_dora,
        "bias": "none",
    }
