"""Recipes."""

import pytest

from services.training.recipe import load_recipe, load_stages, parse_recipe, recipe_names
from services.training.shapes import SHAPE
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
    stages = load_stages(name)
    assert [stage.name for stage in stages] == [name] or len(stages) > 1


@pytest.mark.parametrize("name", [name for name in recipe_names() if len(load_stages(name)) > 1])
def test_stages_of_the_installation_fit_on_each_other(name: str) -> None:
    first, *others = [stage.recipe.adapter for stage in load_stages(name)]
    for adapter in others:
        assert {field: getattr(adapter, field) for field in SHAPE} == {field: getattr(first, field) for field in SHAPE}


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
        (GOOD.replace("sft", "dpo").replace('"lora"', '"lora"\ndropout = 0.1'), "adapter", "set adapter.dropout = 0"),
        (
            GOOD.replace("sft", "reward").replace('"lora"', '"none"').replace("method", 'precision = "f32"\nmethod'),
            "adapter",
            '"lora" or "qlora"',
        ),
        (GOOD.replace('"lora"', '"lora"\ntarget_modules = []'), "adapter", "all-linear"),
        (GOOD.replace('"lora"', '"lora"\nr = 0'), "adapter.r", "greater than or equal to 1"),
        (GOOD.replace("sft", "dpo") + "[dpo]\nbeta = 0", "dpo.beta", "greater than 0"),
        (GOOD.replace("sft", "dpo") + '[dpo]\nloss = "robust"', "dpo.loss", "'sigmoid', 'ipo' or 'hinge'"),
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
