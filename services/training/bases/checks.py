"""Checks that a folder is a complete, trainable base: its weights match its configuration, and its tokenizer renders a conversation."""

import json
from pathlib import Path
from typing import Any

from services.training.bases.files import (
    INDEX,
    load_tokenizer,
    read_json,
    read_weight_map,
    refuse_code,
    weight_files,
)
from tailor.errors import InvalidArgument, Reason

QUESTIONS = ("Which control failed?", "The second one.")


def check_base(folder: Path) -> int:
    """Check a base and return its number of parameters. Reads no weights.

    Raises InvalidArgument unless it is a complete causal model in safetensors with a chat template: NOT_CAUSAL, QUANTISED, PICKLE_REFUSED,
    CODE_REFUSED, NO_CHAT_TEMPLATE, NOT_SAFETENSORS, MISSING_FILE, MISSING_TENSORS or BASE_UNREADABLE.
    """
    config = read_json(folder / "config.json")
    architectures = config.get("architectures") or []
    if not architectures or not all(str(name).endswith("ForCausalLM") for name in architectures):
        raise InvalidArgument(
            Reason.NOT_CAUSAL, "`architectures` in config.json must name a causal language model (...ForCausalLM)."
        )
    if "quantization_config" in config:
        raise InvalidArgument(Reason.QUANTISED, "The weights are already quantised. Add the model in bf16, f16 or f32.")
    refuse_code(folder)
    described = read_json(folder / "tokenizer_config.json")
    if not described.get("chat_template") and not (folder / "chat_template.jinja").exists():
        raise InvalidArgument(
            Reason.NO_CHAT_TEMPLATE, "The tokenizer has no chat template. Use an instruction-tuned model."
        )
    sizes = _tensor_sizes(folder)
    _check_weights(folder, len(sizes))
    _check_tokenizer(folder)
    return sum(sizes.values())


def _tensor_sizes(folder: Path) -> dict[str, int]:
    """Number of elements of each tensor."""
    from safetensors import SafetensorError, safe_open

    sizes: dict[str, int] = {}
    for file in weight_files(folder):
        try:
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 - not a dictionary
                    size = 1
                    for width in tensors.get_slice(name).get_shape():
                        size *= width
                    sizes[name] = size
        except SafetensorError:
            raise InvalidArgument(Reason.NOT_SAFETENSORS, f"{file.name} is not a complete safetensors file.") from None
    if (folder / INDEX).exists() and (missing := set(read_weight_map(folder)) - set(sizes)):
        raise InvalidArgument(Reason.MISSING_FILE, f"{len(missing)} tensors that {INDEX} names are missing.")
    return sizes


def _check_weights(folder: Path, tensors: int) -> None:
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig, AutoModelForCausalLM

    unreadable = (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RuntimeError)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        layers = int(config.get_text_config().num_hidden_layers)
        # Checked first: building a model of absurdly many layers would take forever.
        if not 0 < layers <= tensors:
            raise _incomplete(f"config.json has {layers} layers, but there are {tensors} tensors")
        _, loading = AutoModelForCausalLM.from_pretrained(
            folder,
            device_map="meta",
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except (*unreadable, StrictDataclassError) as error:
        raise InvalidArgument(
            Reason.BASE_UNREADABLE,
            f"This version cannot read the base's configuration ({type(error).__name__}).",
        ) from None
    wrong = [*loading["missing_keys"], *(name for name, *_ in loading["mismatched_keys"])]
    if wrong:
        raise _incomplete(
            f"{min(wrong)} is missing or its shape differs from config.json ({len(wrong)} such tensors in total)"
        )


def _incomplete(problem: str) -> InvalidArgument:
    return InvalidArgument(Reason.MISSING_TENSORS, f"The weights are incomplete: {problem}. Save the model again.")


def _check_tokenizer(folder: Path) -> None:
    from jinja2 import TemplateError

    try:
        tokenizer = load_tokenizer(folder)
        prompts = [_render(tokenizer, question) for question in QUESTIONS]
    except TemplateError as error:
        raise InvalidArgument(
            Reason.NO_CHAT_TEMPLATE, f"The chat template cannot render a question ({type(error).__name__})."
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidArgument(
            Reason.BASE_UNREADABLE, f"This version cannot read the base's tokenizer ({type(error).__name__})."
        ) from None
    if prompts[0] == prompts[1]:
        raise InvalidArgument(Reason.NO_CHAT_TEMPLATE, "The chat template renders two different questions the same.")


def _render(tokenizer: Any, question: str) -> str:
    tokens = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, tokenize=True, return_dict=False
    )
    return json.dumps(tokens)
