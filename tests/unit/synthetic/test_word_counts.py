"""Counting tokens word by word."""

import random
from collections.abc import Sequence

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from services.synthetic.adapters import tokenizers
from services.synthetic.adapters.tokenizers import (
    AT_BLANKS,
    AT_LINES,
    GAPS,
    LINE_GAPS,
    SIGNS,
    WordRule,
    count_by_words,
    find_word_rule,
)

TEXTS = ["Keys: 12 of 1,234.\n\n- Anna's  desk\n  (2nd floor)", "", "  \n", "a", " 中文 とかな 😀\tn\u0303 \n\nend. "]


def byte_level(pre_tokenizer: pre_tokenizers.PreTokenizer | None) -> Tokenizer:
    """A tokenizer of bytes, with the merges of `e`, a blank and `s` across two words."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("e", "Ġ"), ("eĠ", "s"), ("Ċ", "Ċ")]
    vocabulary = {
        token: number for number, token in enumerate([*letters, *(first + second for first, second in merges)])
    }
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizer
    return tokenizer


def split_by(pattern: str) -> pre_tokenizers.PreTokenizer:
    parts = [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    return pre_tokenizers.Sequence(parts)


GPT_2 = pre_tokenizers.ByteLevel(False)
LLAMA_3 = split_by(r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


@pytest.mark.parametrize(("pre_tokenizer", "rule"), [(GPT_2, AT_LINES), (LLAMA_3, AT_BLANKS)])
def test_counts_of_words_add_up_to_those_of_the_text(
    pre_tokenizer: pre_tokenizers.PreTokenizer, rule: WordRule
) -> None:
    tokenizer = byte_level(pre_tokenizer)
    assert find_word_rule(tokenizer) == rule

    def encode(texts: Sequence[str]) -> list[int]:
        return [len(encoding) for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    counts = count_by_words(encode, rule)
    assert counts.count(TEXTS) == encode(TEXTS)
    draw = random.Random(7)
    texts = ["".join(draw.choices([*SIGNS, *GAPS, *LINE_GAPS, "\r\n", "\0"], k=12)) for _ in range(3_000)]
    assert counts.count(texts) == encode(texts)
    assert counts.count(TEXTS) == encode(TEXTS)


@pytest.mark.parametrize("pre_tokenizer", [pre_tokenizers.ByteLevel(False, use_regex=False), split_by(r"[.!?]"), None])
def test_tokens_that_can_join_two_words_are_counted_by_text(pre_tokenizer: pre_tokenizers.PreTokenizer | None) -> None:
    assert find_word_rule(byte_level(pre_tokenizer)) is None


def test_a_full_memory_begins_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizers, "MAX_WORDS", 3)
    counts = count_by_words(lambda texts: [len(text) for text in texts], AT_LINES)
    assert counts.count(["a bb ccc"]) == [8]
    assert counts.count(["d ee ccc", "a"]) == [8, 1]


def test_counts_a_repeated_word_once() -> None:
    asked: list[str] = []

    def encode(texts: Sequence[str]) -> list[int]:
        asked.extend(texts)
        return [1] * len(texts)

    assert count_by_words(encode, AT_BLANKS).count(["to and to and to"]) == [5]
    assert sorted(asked) == [" and", " to", "to"]


@pytest.mark.parametrize("rule", [AT_BLANKS, AT_LINES])
def test_sentences_have_the_words_of_their_text(rule: WordRule) -> None:
    draw = random.Random(3)
    signs = [
        ". ",
        ".",
        ".\n",
        "\0",
        "- ",
        "-",
        " ",
        "a",
        "b",
        "\n",
        "\t",
        "\u00a0",
        "\u3000",
        "?",
        ".. ",
        "x. Y",
        "\u2028",
    ]
    for _ in range(5_000):
        text = "".join(draw.choices(signs, k=draw.randint(0, 14)))
        parts = [sentence for paragraph in rule.paragraphs(text) for sentence in rule.sentences(paragraph)]
        words = [word for part in parts for word in rule.words(part)]
        assert words == rule.words(text)
        assert "".join(parts) == text


def test_reads_the_words_of_a_repeated_sentence_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = count_by_words(lambda texts: [len(text) for text in texts], AT_LINES)
    text = "The first sentence. The second one. The third"
    assert counts.count([text, f"Before. {text}. After"]) == [len(text), len(text) + 15]
    monkeypatch.setattr(tokenizers, "MAX_SENTENCES", 2)
    counts = count_by_words(lambda texts: [len(text) for text in texts], AT_LINES)
    assert [counts.count([text]) for _ in range(2)] == [[len(text)], [len(text)]]
