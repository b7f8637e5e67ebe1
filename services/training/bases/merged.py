"""A base made from an adapter: its base with the adapter's weights merged in, or the full weights that a run made."""

import shutil
from pathlib import Path

from services.training.bases.files import KEPT, state_precision
from tailor.errors import InvalidArgument, Reason

SHARD = "4GB"


def merge(base: Path, adapter: Path, target: Path) -> None:
    """Write the merged model into `target`. The sums are made in f32 (4 bytes a parameter) and kept in bf16.

    InvalidArgument (ADAPTER_DOES_NOT_LOAD) where the adapter was not made for this base.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        base, dtype=torch.float32, local_files_only=True, trust_remote_code=False, use_safetensors=True
    )
    try:
        merged = PeftModel.from_pretrained(model, adapter).merge_and_unload(safe_merge=True)
    except (ValueError, RuntimeError, KeyError) as error:
        raise InvalidArgument(
            Reason.ADAPTER_DOES_NOT_LOAD, f"The adapter cannot be merged into its base ({type(error).__name__})."
        ) from None
    merged.to(torch.bfloat16).save_pretrained(target, safe_serialization=True, max_shard_size=SHARD)
    # Its tokenizer, chat template and way to end an answer are the base's own.
    for file in base.iterdir():
        if file.name in KEPT and file.name != "config.json" and not file.name.endswith(".index.json"):
            shutil.copyfile(file, target / file.name)
    state_precision(target / "config.json")
