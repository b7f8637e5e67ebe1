"""Whether a base can be trained: its weights are all that its configuration speaks of, and its tokenizer renders a conversation."""

import json
from pathlib import Path
from typing import Any

from tailor.errors import InvalidArgument, Reason

SAID = ("Which control failed?", "The second one.")


def check_whole(folder: Path, tensors: int) -> None:
    """InvalidArgument (BASE_UNREADABLE, MISSING_TENSORS, NO_CHAT_TEMPLATE). Reads no weights; `tensors` is how many the files hold."""
    _check_weights(folder, tensors)
    _check_tokenizer(folder)


def _check_weights(folder: Path, tensors: int) -> None:
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig, AutoModelForCausalLM

    unreadable = (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RuntimeError)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        layers = int(config.get_text_config().num_hidden_layers)
        # Looked at first: building so many would take for ever.
        if not 0 < layers <= tensors:
            raise _missing(f"config.json speaks of {layers} layers, and there are {tensors} tensors")
        _, found = AutoModelForCausalLM.from_pretrained(
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
            f"The base's configuration is not one that this version reads ({type(error).__name__}).",
        ) from None
    wrong = [*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])]
    if wrong:
        raise _missing(f"{min(wrong)} is missing or of another shape than config.json says, {len(wrong)} such in all")


def _missing(what: str) -> InvalidArgument:
    return InvalidArgument(Reason.MISSING_TENSORS, f"The weights are not whole: {what}. Save the model again.")


def _check_tokenizer(folder: Path) -> None:
    from jinja2 import TemplateError

    from services.training.methods.model import load_tokenizer

    try:
        tokenizer = load_tokenizer(folder)
        prompts = [_prompt(tokenizer, asked) for asked in SAID]
    except TemplateError as error:
        raise InvalidArgument(
            Reason.NO_CHAT_TEMPLATE, f"The chat template does not render a question ({type(error).__name__})."
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidArgument(
            Reason.BASE_UNREADABLE, f"The base's tokenizer is not one that this version reads ({type(error).__name__})."
        ) from None
    if prompts[0] == prompts[1]:
        raise InvalidArgument(Reason.NO_CHAT_TEMPLATE, "The chat template renders two questions alike.")


def _prompt(tokenizer: Any, asked: str) -> str:
    tokens = tokenizer.apply_chat_template(
        [{"role": "user", "content": asked}], add_generation_prompt=True, tokenize=True, return_dict=False
    )
    return json.dumps(tokens)
