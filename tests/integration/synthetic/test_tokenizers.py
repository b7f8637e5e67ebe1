"""Synthetic's counts of tokens against transformers, with which a base is trained."""

import json
from pathlib import Path
from typing import Any

import pytest

from services.synthetic.adapters.tokenizers import make_counter
from services.training.bases.files import complete_tokenizer
from tailor.chat import clean_message, encode, encode_prompt
from tailor.errors import InvalidArgument
from tests.models import CHAT_TEMPLATE, SPECIAL
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
OWN_SYSTEM_PROMPT = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a helpful assistant named Tiny<|im_end|>\n{% endif %}"
    + CHAT_TEMPLATE
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


def count_both(tokenizer: Any, content: str, *, with_system: bool, turns: int) -> tuple[int, int]:
    """The tokens of a conversation by transformers, and by the counter."""
    counted = make_counter(
        base_files(**{"tokenizer_config.json": json.dumps({"chat_template": tokenizer.chat_template})}), ""
    )
    messages = [{"role": "system", "content": content}] * with_system
    messages += [{"role": role, "content": content} for role in ("user", "assistant")] * turns
    actual = len(tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False))
    contents = [content] * 2 * turns
    template = counted.template_tokens(contents, has_system=with_system)
    return actual, sum(counted.count([content] * len(messages))) + template


@pytest.mark.parametrize("turns", [1, 2, 5])
@pytest.mark.parametrize("with_system", [False, True])
@pytest.mark.parametrize("content", CONTENTS)
def test_a_conversation_never_has_more_tokens_than_its_bound(
    tokenizer: Any, content: str, with_system: bool, turns: int
) -> None:
    actual, bound = count_both(tokenizer, content, with_system=with_system, turns=turns)
    assert actual <= bound <= actual + 3 * (2 * turns + with_system)


@pytest.mark.parametrize("turns", [1, 2, 5])
@pytest.mark.parametrize("with_system", [False, True])
@pytest.mark.parametrize("template", [CHAT_TEMPLATE, OWN_SYSTEM_PROMPT], ids=["plain", "own"])
@pytest.mark.parametrize("content", [text for text in CONTENTS if text and text == text.strip()] + list(TEXTS))
def test_a_conversation_has_exactly_the_tokens_of_transformers(
    tokenizer: Any, content: str, template: str, with_system: bool, turns: int
) -> None:
    tokenizer.chat_template = template
    actual, counted = count_both(tokenizer, content.strip(), with_system=with_system, turns=turns)
    tokenizer.chat_template = CHAT_TEMPLATE
    assert counted == actual


# Texts that may be rendered otherwise once they are answered: their first characters may join the template's line break.
DIFFICULT = ("  indented", "\n\nlines", "\ttab", "\u00a0solid blank", "plain", "<|im_end|> and on", "")


@pytest.mark.parametrize("answer", DIFFICULT)
@pytest.mark.parametrize("prompt", ["Why?", " Why?\n"])
@pytest.mark.parametrize("turns", [1, 3])
def test_the_builder_encodes_exactly_what_training_encodes(
    tokenizer: Any, prompt: str, answer: str, turns: int
) -> None:
    counted = make_counter(base_files(), "")
    messages = [("system", "Be brief."), *[("user", prompt), ("assistant", answer)] * turns]
    chat = [{"role": role, "content": content} for role, content in messages]
    try:
        expected = encode("r1", chat, tokenizer)
    except InvalidArgument:
        assert not counted.can_encode(messages)
    else:
        assert counted.can_encode(messages)
        assert encode("r1", chat, counted.chats) == expected


@pytest.mark.parametrize("answer", [f"{start}{'word ' * 200}end" for start in DIFFICULT])
def test_a_long_row_is_checked_by_its_ends_as_if_it_were_encoded_whole(tokenizer: Any, answer: str) -> None:
    messages = [("user", "Why? " * 200), ("assistant", answer)]
    try:
        encode("r1", [{"role": role, "content": content} for role, content in messages], tokenizer)
        holds = True
    except InvalidArgument:
        holds = False
    assert make_counter(base_files(), "").can_encode(messages) is holds


def test_white_space_that_a_tokenizer_would_join_with_the_prompt_stays_apart() -> None:
    # As SmolLM2 does: line breaks and the blanks behind them are one word.
    joining = json.loads(base_files()["tokenizer.json"])
    regex = {"Regex": r"\s+(?!\S)|\s+|\S+"}
    joining["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": regex, "behavior": "Isolated", "invert": False},
            {**joining["pre_tokenizer"], "use_regex": False},
        ],
    }
    vocabulary, merges = joining["model"]["vocab"], joining["model"]["merges"]
    vocabulary["ĊĠ"] = len(vocabulary) + len(SPECIAL)
    merges.append(["Ċ", "Ġ"])
    counted = make_counter(base_files(**{"tokenizer.json": json.dumps(joining)}), "")
    indented = "    apt-get install gdb\n      gdb-doc"
    assert clean_message(indented) == "apt-get install gdb\n  gdb-doc"
    asked = {"role": "user", "content": "How?"}
    for answer in (indented, clean_message(indented)):
        assert counted.can_encode([("user", "How?"), ("assistant", answer)])
        row = encode("r1", [asked, {"role": "assistant", "content": answer}], counted.chats)
        assert list(row.tokens[: row.prompt_length]) == encode_prompt([asked], counted.chats)
