"""Loading a base for training, and the adapter options of a recipe. Both the policy and the reward model build on it."""

from pathlib import Path
from typing import Any

from services.training.bases.attention import register_attention, separate_rows
from services.training.bases.capabilities import choose_targets, read_capabilities
from services.training.recipe import Recipe
from tailor.blocked_imports import hide_packages

# Names of windows in configurations, besides those that say so.
CHUNKS = ("attention_chunk_size", "local_attention")


def hide_unused_packages(recipe: Recipe) -> None:
    """Hide the packages that transformers and peft would load although the recipe does not use them. For a worker's own process.

    They take a quarter of the time in which a worker starts.
    """
    hide_packages("sklearn", "scipy")
    if recipe.adapter.kind != "qlora":
        hide_packages("bitsandbytes")


def has_gpu() -> bool:
    """True if this process computes on a GPU."""
    import torch

    return bool(torch.cuda.is_available())


def read_context(base: Path) -> int:
    """The longest sequence that the base reads, in tokens."""
    return int(_read_text_config(base).max_position_embeddings)


def read_window(base: Path) -> int:
    """The tokens of the base's longest attention window or chunk; 0 if every token sees all before it."""
    config = _read_text_config(base).to_dict()
    sizes = [config[name] for name in config if "window" in name or name in CHUNKS]
    return max((size for size in sizes if isinstance(size, int) and not isinstance(size, bool)), default=0)


def read_width(base: Path) -> int:
    """The width of the base's hidden states."""
    return int(_read_text_config(base).hidden_size)


def read_family(base: Path) -> str:
    """The family of the base in transformers' terms, such as `llama` or `qwen3`."""
    return str(_read_text_config(base).model_type)


def _read_text_config(base: Path) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(base, local_files_only=True, trust_remote_code=False).get_text_config()


def load_base(base: Path, recipe: Recipe) -> Any:
    """The base in the recipe's precision, from local safetensors only."""
    from transformers import AutoModelForCausalLM

    return separate_rows(AutoModelForCausalLM.from_pretrained(base, **load_options(base, recipe)))


def load_options(base: Path, recipe: Recipe, skipped: str = "lm_head") -> dict[str, Any]:
    """Options of `from_pretrained`: the recipe's precision, and for QLoRA everything except the layer `skipped` in NF4.

    Attention is the quickest that computes the base's rows rightly.
    """
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
        "attn_implementation": read_capabilities(base).attention,
    }


def _nf4(compute: Any, skipped: str) -> Any:
    """NF4 with double quantisation (QLoRA, Dettmers et al. 2023, arXiv:2305.14314, section 3)."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
        llm_int8_skip_modules=[skipped],
    )


def prepare_quantised(model: Any) -> Any:
    """An NF4 base, made ready to be trained on: other weights and the inputs of layers in f32."""
    from bitsandbytes.nn import Linear4bit
    from peft import prepare_model_for_kbit_training

    for layer in model.modules():
        if isinstance(layer, Linear4bit):
            # bitsandbytes 0.50 has a fast path without gradients on AVX-512 that gives different results in half of all processes.
            layer.support_avx512bf16_for_cpu = False
    return prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)


def keep_in_f32(model: Any) -> None:
    """Cast the trained weights on an NF4 base back to f32. trl's trainers cast them to bf16, which loses small updates."""
    if getattr(model, "is_loaded_in_4bit", False):
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()


def adapter_options(recipe: Recipe, base: Path) -> dict[str, Any]:
    """The recipe's adapter in peft's terms. Raises InvalidArgument (INVALID_RECIPE) if it names layers that cannot be adapted."""
    return {
        "r": recipe.adapter.r,
        "lora_alpha": recipe.adapter.alpha,
        "lora_dropout": recipe.adapter.dropout,
        "target_modules": choose_targets(read_capabilities(base), recipe.adapter.target_modules),
        "use_rslora": recipe.adapter.use_rslora,
        "use_dora": recipe.adapter.use_dora,
        "bias": "none",
    }
