"""The text part of a model that also reads images or sound (`...ForConditionalGeneration`), made a causal model by itself.

Training and serving then know it as what it is for them: the causal class that transformers has for its text configuration. Weights of
the other parts are left out.
"""

import json
import re
from pathlib import Path
from typing import Any

from services.training.bases.files import INDEX, read_json, read_weight_map
from tailor.errors import InvalidArgument, Reason

WHOLE = "ForConditionalGeneration"
CAUSAL = "ForCausalLM"
# The text part's weights, as models are published and as transformers saves them, e.g. `language_model.model.layers.0...`.
TEXT = re.compile(r"(?:model\.)?(?:language_model|text_model)\.(?:model\.)?(?P<rest>.+)")
HEAD = "lm_head."


def is_whole(config: dict[str, Any]) -> bool:
    """True if a configuration is of a model with a text part among others."""
    architectures = [str(name) for name in config.get("architectures") or []]
    return bool(architectures) and all(name.endswith(WHOLE) for name in architectures)


def to_text_name(name: str) -> str:
    """The name of a whole model's tensor in its text part; empty if it belongs to another part."""
    match = TEXT.fullmatch(name)
    if match is None:
        return name if name.startswith(HEAD) else ""
    return match["rest"] if match["rest"].startswith(HEAD) else f"model.{match['rest']}"


def keep_text(folder: Path, names: set[str]) -> None:
    """Make the configuration and index in a folder those of the text part. `names` are the tensors of the whole model.

    Raises InvalidArgument (NOT_CAUSAL, BASE_UNREADABLE).
    """
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    try:
        whole = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        text = whole.get_text_config()
    except (OSError, ValueError, KeyError) as error:
        raise InvalidArgument(
            Reason.BASE_UNREADABLE,
            f"This version cannot read the base's configuration ({type(error).__name__}).",
        ) from None
    causal = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(text.model_type)
    if not isinstance(causal, str) or not causal.endswith(CAUSAL):
        raise InvalidArgument(
            Reason.NOT_CAUSAL,
            f"This version has no causal class for the text part of {whole.model_type}. Add a model of the same family for text only.",
        )
    has_head = any(to_text_name(name).startswith(HEAD) for name in names)
    described = {
        **text.to_dict(),
        "architectures": [causal],
        "tie_word_embeddings": not has_head or bool(whole.tie_word_embeddings),
    }
    (folder / "config.json").write_text(json.dumps(described, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    if (folder / INDEX).exists():
        weight_map = {to_text_name(name): file for name, file in read_weight_map(folder).items() if to_text_name(name)}
        index = {**read_json(folder / INDEX), "weight_map": weight_map}
        (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")
