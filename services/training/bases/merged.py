"""Makes a base from an adapter, by merging the adapter's weights into its base."""

import shutil
from pathlib import Path

from services.training.bases.files import KEPT, write_precision
from tailor.errors import InvalidArgument, Reason

SHARD = "4GB"


def merge(base: Path, adapter: Path, target: Path) -> None:
    """Write the merged model into `target`. Adds up in f32 (4 bytes of memory per parameter) and stores bf16.

    Raises InvalidArgument (ADAPTER_DOES_NOT_LOAD) if the adapter was not made for this base.
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
    # Tokenizer, chat template and end tokens are the base's own.
    for file in base.iterdir():
        if file.name in KEPT and file.name != "config.json" and not file.name.endswith(".index.json"):
            shutil.copyfile(file, target / file.name)
    write_precision(target / "config.json")
