"""A small tokenizer for tests, with SmolLM2's chat template, made without torch and transformers."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from tailor.storage.buckets import MODELS
from tailor.storage.protocol import ObjectStore
from tests.models import CHAT_TEMPLATE, SPECIAL

TEXTS = (
    "The control failed in March.",
    "Die Kontrolle ist im März ausgefallen.",
    "An owner and a date for each remedy.",
)


def tokenizer_json(texts: Sequence[str] = TEXTS, vocabulary: int = 400) -> str:
    """A byte-level BPE tokenizer, trained on the texts."""
    return _train(tuple(texts), vocabulary)


@cache
def _train(texts: tuple[str, ...], vocabulary: int) -> str:
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = [AddedToken(token, special=True) for token in SPECIAL]
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(texts, trainer)
    text: str = tokenizer.to_str()
    return text


def base_files(**changes: Any) -> dict[str, str]:
    """The files of a base that a counter reads, by name. A change to None leaves the file out."""
    description = {"chat_template": CHAT_TEMPLATE, "eos_token": "<|im_end|>", "bos_token": {"content": "<|im_start|>"}}
    files: dict[str, Any] = {
        "tokenizer.json": tokenizer_json(),
        "tokenizer_config.json": json.dumps(description),
        "config.json": json.dumps({"max_position_embeddings": 2048}),
    }
    return {name: text for name, text in (files | changes).items() if text is not None}


def put_base(store: ObjectStore, name: str, files: Mapping[str, str]) -> None:
    """Store the files and the manifest of a base, as `tailor model add` does."""
    entries = []
    for path, text in files.items():
        data = text.encode()
        digest = hashlib.sha256(data).hexdigest()
        store.put(MODELS, f"bases/files/{digest}", data)
        entries.append({"path": path, "sha256": digest, "size_bytes": len(data), "key": f"bases/files/{digest}"})
    manifest = {"name": name, "licence": "apache-2.0", "parameters": 1, "files": entries}
    store.put(MODELS, f"bases/{name}/manifest.json", json.dumps(manifest).encode())
