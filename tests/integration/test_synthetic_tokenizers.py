"""Synthetic's counts of tokens against transformers, with which a base is trained."""

import json
from pathlib import Path
from typing import Any

import pytest

from services.synthetic.adapters.tokenizers import make_counter
from services.training.bases.files import complete_tokenizer
from tests.models import CHAT_TEMPLATE
from tests.tokenizers import TEXTS, base_files

pytestmark = pytest.mark.integration

CONTENTS = (
    "Why?",
    "\n\nA table:\n| a | b |\n",
    "  indented, with spaces at the end  ",
    "Zürich 🌍 " * 40,
    "x",
    "user\n",
    "",
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import PreTrainedTokenizerFast

    file: Path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    file.write_text(base_files()["tokenizer.json"], encoding="utf-8")
    return PreTrainedTokenizerFast(tokenizer_file=str(file), chat_template=CHAT_TEMPLATE, eos_token="<|im_end|>")


def test_plain_texts_have_as_many_tokens_as_in_transformers(tokenizer: Any) -> None:
    counts = make_counter(base_files(), "").count(CONTENTS)
    assert counts == [len(tokenizer.encode(text, add_special_tokens=False)) for text in CONTENTS]


def test_a_base_in_an_older_form_gets_a_tokenizer_file(tmp_path: Path) -> None:
    model = json.loads(base_files()["tokenizer.json"])["model"]
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    (tmp_path / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer"}))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    complete_tokenizer(tmp_path)
    written = (tmp_path / "tokenizer.json").read_text(encoding="utf-8")
    counted = make_counter(base_files(**{"tokenizer.json": written}), "")
    assert counted.count(TEXTS) == make_counter(base_files(), "").count(TEXTS)


@pytest.mark.parametrize("turns", [1, 2, 5])
@pytest.mark.parametrize("with_system", [False, True])
@pytest.mark.parametrize("content", CONTENTS)
def test_a_conversation_never_has_more_tokens_than_its_bound(
    tokenizer: Any, content: str, with_system: bool, turns: int
) -> None:
    counted = make_counter(base_files(**{"tokenizer_config.json": json.dumps({"chat_template": CHAT_TEMPLATE})}), "")
    messages = [{"role": "system", "content": content}] * with_system
    messages += [{"role": role, "content": content} for role in ("user", "assistant")] * turns
    actual = len(tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False))
    bound = sum(counted.count([content] * len(messages))) + counted.message_tokens * len(messages)
    assert actual <= bound <= actual + 3 * len(messages)
