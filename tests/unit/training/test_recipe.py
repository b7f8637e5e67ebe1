"""Recipes."""

import pytest

from services.training.recipe import load_recipe, parse_recipe, recipe_names
from tailor.errors import InvalidArgument

GOOD = """
method = "sft"
[adapter]
kind = "lora"
[optimizer]
learning_rate = 1e-3
"""


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_of_the_installation_parses(name: str) -> None:
    assert load_recipe(name).method == "sft"


def test_demo_recipe_stays_within_its_budget() -> None:
    assert load_recipe("lora").limit.max_tokens <= 50_000


def test_digest_follows_the_settings_and_not_the_spelling() -> None:
    assert parse_recipe(GOOD).digest == parse_recipe(GOOD.replace("1e-3", "0.001")).digest
    assert parse_recipe(GOOD).digest != parse_recipe(GOOD.replace("1e-3", "2e-3")).digest


@pytest.mark.parametrize(
    ("wrong", "field", "hint"),
    [
        (GOOD.replace("sft", "ppo"), "method", "sft"),
        (GOOD.replace("1e-3", "-1"), "optimizer.learning_rate", "greater than 0"),
        (GOOD + "learning_rat = 1", "optimizer.learning_rat", "not permitted"),
        (GOOD.replace('kind = "lora"', 'kind = "none"'), "precision", "mixed"),
        (GOOD + "[batch]\ntokens = 64\nmax_length = 128", "batch", "set batch.tokens"),
        (GOOD + "[limit]\nmax_tokens = 10", "limit", "or more"),
    ],
)
def test_wrong_recipe_is_refused_with_field_reason_and_remedy(wrong: str, field: str, hint: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse_recipe(wrong)
    assert refused.value.reason == "INVALID_RECIPE"
    assert hint in refused.value.field_violations[field]


def test_unknown_recipe_names_those_that_exist() -> None:
    with pytest.raises(InvalidArgument, match=r"lora.*tiny"):
        load_recipe("../secrets")


def test_refuses_what_is_not_toml() -> None:
    with pytest.raises(InvalidArgument, match="not TOML"):
        parse_recipe("method = ")
