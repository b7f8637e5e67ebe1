"""Rows as token ids."""

from typing import Any, ClassVar

import pytest
from jinja2 import TemplateError

from services.training.methods.answers import prompt_tokens
from services.training.methods.held_out import plan_measurements
from services.training.methods.pairs import keep_fitting as keep_fitting_pairs
from services.training.methods.pairs import to_pairs
from services.training.methods.rows import IGNORED, keep_fitting, pack, to_columns
from services.training.methods.sft import count_steps
from services.training.recipe import BatchRecipe, parse_recipe
from tailor.chat import Encoded, encode
from tailor.errors import InvalidArgument


class WordTokenizer:
    """A word is a token; 0 ends a turn, 1 is the line break after it, 2 opens the assistant's turn."""

    eos_token = "<0>"
    added_tokens_decoder: ClassVar[dict[int, Any]] = {}

    def apply_chat_template(self, conversation: Any, **options: Any) -> str:
        turns = ("<2> " * (m["role"] == "assistant") + f"{m['content']} <0> <1> " for m in conversation)
        return "".join(turns) + "<2> " * bool(options.get("add_generation_prompt"))

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        words = text.replace("<", " <").split()
        return [int(word[1]) if word[0] == "<" else 10 + len(word) for word in words]


ROW = [{"role": "user", "content": "aa bb"}, {"role": "assistant", "content": "ccc d"}]


def test_only_the_answer_and_the_token_that_ends_it_are_learned() -> None:
    row = encode("r1", ROW, WordTokenizer())
    assert row.tokens == (12, 12, 0, 1, 2, 13, 11, 0)
    columns = to_columns([[row]])
    assert columns["labels"] == [[IGNORED] * 5 + [13, 11, 0]]


CHAT = [*ROW, {"role": "user", "content": "eeee"}, {"role": "assistant", "content": "fff gg"}]


def test_every_answer_of_a_chat_is_learned() -> None:
    row = encode("r1", CHAT, WordTokenizer())
    assert row.tokens == (12, 12, 0, 1, 2, 13, 11, 0, 1, 14, 0, 1, 2, 13, 12, 0)
    assert (row.prompt_length, row.earlier, row.learned) == (13, ((5, 8),), 6)
    (labels,) = to_columns([[row]])["labels"]
    assert labels == [IGNORED] * 5 + [13, 11, 0] + [IGNORED] * 5 + [13, 12, 0]


def test_rows_share_the_objects_of_their_token_ids() -> None:
    class Wide(WordTokenizer):
        """Token ids that Python does not share by itself."""

        def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
            return [1000 + token for token in super().encode(text, add_special_tokens=add_special_tokens)]

    first, second = (encode(name, ROW, Wide()) for name in ("r1", "r2"))
    assert all(one is other for one, other in zip(first.tokens, second.tokens, strict=True))


def test_earlier_answers_are_learned_only_where_the_template_leaves_them_as_they_were_written() -> None:
    class Forgetful(WordTokenizer):
        """A template that leaves out all answers but the last, as those of reasoning models leave out thoughts."""

        def apply_chat_template(self, conversation: Any, **options: Any) -> str:
            kept = [m for m in conversation[:-1] if m["role"] != "assistant"]
            return super().apply_chat_template([*kept, conversation[-1]], **options)

    row = encode("r1", CHAT, Forgetful())
    assert (row.tokens, row.prompt_length, row.earlier) == ((12, 12, 0, 1, 14, 0, 1, 2, 13, 12, 0), 8, ())


def test_long_row_is_skipped_whole() -> None:
    long = encode("r1", CHAT, WordTokenizer())
    short = encode("r2", ROW, WordTokenizer())
    assert (len(long.tokens), len(short.tokens)) == (16, 8)
    assert keep_fitting([long, short], 15) == [short]
    assert keep_fitting([long, short], 16) == [long, short]


def test_row_without_an_answer_is_rejected() -> None:
    with pytest.raises(InvalidArgument, match="r1"):
        encode("r1", ROW[:1], WordTokenizer())


class StrictTokenizer(WordTokenizer):
    """A template that rejects system messages."""

    def apply_chat_template(self, conversation: Any, **options: Any) -> str:
        if conversation[0]["role"] == "system":
            raise TemplateError("System role not supported")
        return super().apply_chat_template(conversation, **options)


def test_row_that_the_template_rejects_is_named_with_its_roles() -> None:
    prompt = [{"role": "system", "content": "be brief"}, ROW[0]]
    for call in (
        lambda: encode("r1", [*prompt, ROW[1]], StrictTokenizer()),
        lambda: prompt_tokens("r1", prompt, StrictTokenizer()),
    ):
        with pytest.raises(InvalidArgument, match="rejects row r1, a conversation of system, user"):
            call()


def test_pair_of_equal_answers_is_skipped() -> None:
    pair = {"row_id": "p1", "messages": ROW[:1], "chosen": "ccc d", "rejected": "e"}
    same = {**pair, "row_id": "p2", "rejected": "ccc d"}
    assert [kept.row_id for kept in to_pairs([pair, same], WordTokenizer())[0]] == ["p1"]


def test_dataset_without_a_row_that_fits_is_rejected() -> None:
    with pytest.raises(InvalidArgument, match="max_length"):
        keep_fitting([encode("r1", ROW, WordTokenizer())], 5)


def rows(*lengths: int) -> list[Encoded]:
    return [Encoded(f"r{number}", tuple(range(length)), 1) for number, length in enumerate(lengths)]


def test_bins_contain_every_row_once_within_capacity() -> None:
    made = rows(90, 60, 50, 40, 30, 20, 10)
    bins = pack(made, 100, seed=7)
    assert sorted(row.row_id for each in bins for row in each) == [row.row_id for row in made]
    assert all(sum(len(row.tokens) for row in each) <= 100 for each in bins)
    assert len(bins) == 3
    assert bins == pack(list(reversed(made)), 100, seed=7)


def test_a_row_over_the_capacity_has_a_bin_of_its_own() -> None:
    bins = pack(rows(150, 60, 40, 101), 100, seed=7)
    assert sorted(sorted(len(row.tokens) for row in each) for each in bins) == [[40, 60], [101], [150]]


def test_steps_respect_every_limit() -> None:
    recipe = parse_recipe(
        'method = "sft"\n[adapter]\nkind = "lora"\n[optimizer]\nlearning_rate = 1e-3\n'
        "[batch]\ntokens = 100\nmax_length = 100\n[limit]\nepochs = 5\nmax_tokens = 550"
    )
    # Five steps of 100 tokens; a sixth would exceed max_tokens.
    assert count_steps([rows(60, 40), rows(90)], recipe) == 5


def test_held_out_loss_is_measured_as_often_as_it_costs_little() -> None:
    rows = [Encoded(f"r{number}", tuple(range(1000)), 1) for number in range(20)]
    # 40 measurements would cost a twentieth of the training; 10 are enough.
    assert plan_measurements(steps=1000, trained_tokens=8_000_000, rows=rows) == 100
    assert plan_measurements(steps=1000, trained_tokens=800_000, rows=rows) == 250
    # The demo: one measurement, at the end.
    assert plan_measurements(steps=74, trained_tokens=38_000, rows=rows[:8]) == 0
    assert plan_measurements(steps=1000, trained_tokens=8_000_000, rows=[]) == 0


def test_without_a_limit_every_pair_fits_that_the_base_can_read() -> None:
    pair = {"row_id": "p1", "messages": ROW[:1], "chosen": "ccc d", "rejected": "e"}
    pairs, _ = to_pairs([pair, {**pair, "row_id": "p2", "chosen": "word " * 100}], WordTokenizer())
    assert [kept.row_id for kept in keep_fitting_pairs(pairs, BatchRecipe(tokens=32), 1000)] == ["p1", "p2"]
    assert [kept.row_id for kept in keep_fitting_pairs(pairs, BatchRecipe(tokens=32), 50)] == ["p1"]
    assert [kept.row_id for kept in keep_fitting_pairs(pairs, BatchRecipe(tokens=32, max_length=16), 1000)] == ["p1"]
