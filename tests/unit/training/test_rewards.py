"""Rewards of answers, and invalid recipes of rollouts and rewards."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from services.training.methods.answers import Prompt, draw_passes, read_prompts
from services.training.methods.rewards import Rewarder, agreement, make_judges, score_length, score_pattern, score_terms
from services.training.methods.rollouts import count_steps, win_rate
from services.training.recipe import Recipe, parse_recipe
from services.training.recipe_parts import RewardRule
from tailor.errors import InvalidArgument

END = 0
PLAIN = """
method = "grpo"
[adapter]
kind = "lora"
[optimizer]
learning_rate = 1e-4
"""


class Words:
    """A tokenizer whose tokens are the words of a list; the first ends a turn."""

    eos_token = "<end>"
    added_tokens_decoder: ClassVar[dict[int, Any]] = {}
    words = ("<end>", "call", "the", "owner", "by", "friday")

    def batch_decode(self, answers: Sequence[Sequence[int]], **_: Any) -> list[str]:
        return [" ".join(self.words[token] for token in answer if token != END) for answer in answers]

    def apply_chat_template(self, conversation: Any, **_: Any) -> str:
        return str(conversation[-1]["content"])

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return [self.words.index(word) for word in text.split()]


def to_prompts(*tokens: list[int]) -> list[Prompt]:
    return [Prompt("r1", ({"role": "user", "content": "the"},), tuple(listed)) for listed in tokens]


@pytest.mark.parametrize(("words", "worth"), [(0, 0.0), (1, 1.0), (4, 1.0), (6, 0.5), (8, 0.0), (20, 0.0)])
def test_short_answers_score_higher_and_empty_ones_score_zero(words: int, worth: float) -> None:
    assert score_length(RewardRule(kind="length", words=4), "word " * words) == worth


def test_terms_match_whole_words_ignoring_case() -> None:
    rule = RewardRule(kind="terms", terms=("owner", "due date", "C++"))
    assert score_terms(rule, "Owner: finance. Due date: Friday.") == pytest.approx(2 / 3)
    assert score_terms(rule, "homeowners and C++") == pytest.approx(1 / 3)


def test_pattern_is_found_anywhere() -> None:
    rule = RewardRule(kind="pattern", pattern=r"by (Monday|Friday)\b")
    assert score_pattern(rule, "Call them by Friday.") == 1.0
    assert score_pattern(rule, "Call them soon.") == 0.0


def test_terms_of_a_reward_are_weighted_and_added() -> None:
    rules = (RewardRule(kind="length", words=2, weight=2.0), RewardRule(kind="terms", terms=("owner",), weight=0.5))
    rewarder = make_judges(rules, Path(), Words()).rewarder
    assert rewarder.rewards(to_prompts([4], [4]), [[1, 3, END], [1, 2, 5, 5, END]]) == [2.5, 0.0]


def test_truncated_answer_is_scored_as_if_it_ended_there() -> None:
    seen: list[list[int]] = []

    def part(whole: Sequence[Sequence[int]], _: Sequence[str]) -> list[float]:
        seen.extend(list(tokens) for tokens in whole)
        return [0.0] * len(whole)

    Rewarder([(1.0, part)], Words()).rewards(to_prompts([4, 5], [4]), [[1, END], [1, 2]])
    assert seen == [[4, 5, 1, END], [4, 1, 2, END]]


def test_model_reward_without_a_reward_adapter_is_rejected() -> None:
    with pytest.raises(InvalidArgument) as refused:
        make_judges((RewardRule(kind="model"),), Path(), Words())
    assert refused.value.reason == "NO_REWARD_ADAPTER"


def test_agreement_counts_pairs_of_answers_to_one_prompt_that_both_judges_order_alike() -> None:
    # The scales do not matter; the two prompts are not compared with each other.
    assert agreement([1.0, 2.0, 9.0, 8.0], [-5.0, -4.0, 0.2, 0.1], 2) == 1.0
    assert agreement([1.0, 2.0, 9.0, 8.0], [-5.0, -4.0, 0.1, 0.2], 2) == 0.5
    assert agreement([1.0, 2.0, 3.0], [0.0, 0.0, 1.0], 3) == pytest.approx(2.5 / 3)
    assert agreement([1.0, 1.0], [0.0, 1.0], 2) is None


def test_tie_counts_half() -> None:
    assert win_rate([1.0, 2.0, 0.0, 3.0], [0.0, 2.0, 1.0, 1.0]) == 0.625


def test_prompts_are_distinct_and_those_without_room_are_counted(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    asked = ["call the owner", "call the owner", "call", "call the owner by friday", "call the owner by friday"]
    rows = [
        {"row_id": f"r{place}", "messages": [{"role": "user", "content": text}]} for place, text in enumerate(asked)
    ]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    prompts, longer = read_prompts([tmp_path / "rows.parquet"], Words(), 3)
    assert [(prompt.row_id, prompt.tokens) for prompt in prompts] == [("r0", (1, 2, 3)), ("r2", (1,))]
    assert longer == 1


def test_every_pass_sees_each_prompt_once_and_a_seed_gives_one_order() -> None:
    prompts = [Prompt(f"r{number}", (), (number,)) for number in range(5)]
    order = draw_passes(prompts, 12, 3)
    assert len(order) == 12
    assert set(order[:5]) == set(order[5:10]) == set(prompts)
    assert order == draw_passes(prompts, 12, 3)
    assert order[:5] != draw_passes(prompts, 5, 4)


def test_steps_respect_the_recipes_limits() -> None:
    prompts = [Prompt(f"r{number}", (), (1,) * 16) for number in range(10)]
    chosen = recipe(rollout={"prompts": 4, "answers": 4, "max_new_tokens": 16}, batch={"accumulation": 2})
    assert count_steps(prompts, chosen) == 3
    assert (
        count_steps(prompts, chosen.model_copy(update={"limit": chosen.limit.model_copy(update={"max_tokens": 1024})}))
        == 2
    )


def recipe(**changes: Any) -> Recipe:
    settings = {
        "method": "rloo",
        "adapter": {"kind": "lora"},
        "optimizer": {"learning_rate": 1e-4},
        "rewards": [{"kind": "length", "words": 10}],
    }
    return Recipe.model_validate({**settings, **changes})


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ("[[rewards]]\nkind = 'pattern'\npattern = '('", "rewards.0"),
        ("[[rewards]]\nkind = 'length'", "rewards.0"),
        ("[[rewards]]\nkind = 'model'\n[rollout]\nprompts = 3\nanswers = 3\n[batch]\naccumulation = 2", "rollout"),
        ("[[rewards]]\nkind = 'model'\n[rollout]\nmax_new_tokens = 64\n[batch]\nmax_length = 64", "rollout"),
        ("[[rewards]]\nkind = 'model'\n[rollout]\nanswers = 1", "rollout.answers"),
        ("[[rewards]]\nkind = 'model'\n[rollout]\nthinking = true", "rollout.thinking"),
        ("", "rewards"),
    ],
)
def test_invalid_rollout_recipe_is_rejected_with_the_field(more: str, field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse_recipe(PLAIN + more)
    assert field in dict(refused.value.field_violations)
