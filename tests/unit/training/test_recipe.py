"""Recipes."""

from pathlib import Path

import pytest

from services.training.recipe import SHAPE, load_recipe, load_stages, parse_recipe, recipe_names
from tailor.errors import InvalidArgument

GOOD = """
method = "sft"
[adapter]
kind = "lora"
[optimizer]
learning_rate = 1e-3
"""
ROLLOUTS = GOOD.replace("sft", "rloo") + '[[rewards]]\nkind = "length"\nwords = 9\n'


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_parses(name: str) -> None:
    stages = load_stages(name)
    assert [stage.name for stage in stages] == [name] or len(stages) > 1


@pytest.mark.parametrize("name", [name for name in recipe_names() if len(load_stages(name)) > 1])
def test_stages_of_shipped_recipes_have_the_same_shape(name: str) -> None:
    first, *others = [stage.recipe.adapter for stage in load_stages(name)]
    for adapter in others:
        assert {field: getattr(adapter, field) for field in SHAPE} == {field: getattr(first, field) for field in SHAPE}


@pytest.mark.parametrize("name", [name for name in recipe_names() if name != "tiny"])
def test_shipped_recipes_count_epochs_and_leave_no_row_out(name: str) -> None:
    for stage in load_stages(name):
        assert (stage.recipe.limit.max_tokens, stage.recipe.limit.max_steps) == (0, 0)
        assert stage.recipe.batch.max_length == 0


def test_digest_depends_on_the_settings_and_not_on_their_spelling() -> None:
    assert parse_recipe(GOOD).digest == parse_recipe(GOOD.replace("1e-3", "0.001")).digest
    assert parse_recipe(GOOD).digest != parse_recipe(GOOD.replace("1e-3", "2e-3")).digest


@pytest.mark.parametrize(
    ("wrong", "field", "hint"),
    [
        (GOOD.replace("sft", "ppo"), "method", "sft"),
        (GOOD.replace("1e-3", "-1"), "optimizer.learning_rate", "greater than or equal to 0"),
        (GOOD + "learning_rat = 1", "optimizer.learning_rat", "not permitted"),
        (GOOD.replace('kind = "lora"', 'kind = "none"'), "precision", "mixed"),
        (GOOD + "[batch]\ntokens = 64\nmax_length = 128", "batch", "set batch.tokens"),
        (GOOD + "[batch]\nmax_length = -1", "batch.max_length", "greater than or equal to 0"),
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
        (GOOD + "learning_rat = 1", "optimizer.learning_rat", "learning_rate, schedule"),
        (GOOD.replace("sft", "grpo") + '[[rewards]]\nkind = "length"\nword = 9', "rewards.0.word", "words, terms"),
        (GOOD.replace('"lora"', '"lora"\nr = "16"'), "adapter.r", "valid integer"),
        (GOOD.replace('"lora"', '"lora"\nr = true'), "adapter.r", "valid integer"),
        (GOOD.replace("1e-3", '"1e-3"'), "optimizer.learning_rate", "valid number"),
        (GOOD.replace("1e-3", "nan"), "optimizer.learning_rate", "finite"),
        (GOOD + "max_gradient_norm = inf", "optimizer.max_gradient_norm", "finite"),
        (GOOD.replace("method", "seed = 4294967296\nmethod"), "seed", "less than 4294967296"),
        (GOOD + "[limit]\nmax_steps = 99999999999999999999", "limit.max_steps", "less than or equal"),
        (GOOD.replace("sft", "sweep") + "[sweep]\nfactors = [1, -1]", "sweep.factors.1", "greater"),
        (GOOD.replace("sft", "sweep") + "[sweep]\nfactors = [1, nan]", "sweep.factors.1", "finite"),
        (GOOD.replace("sft", "sweep") + "[sweep]\nfactors = [1, 1]", "sweep", "name each once"),
        (GOOD.replace("sft", "sweep") + "[sweep]\nfactors = [1]", "sweep.factors", "at least 2"),
        (GOOD.replace("sft", "grpo") + '[[rewards]]\nkind = "terms"\nterms = [""]', "rewards.0.terms.0", "at least 1"),
        (GOOD.replace("sft", "grpo") + '[[rewards]]\nkind = "emoji"', "rewards.0.kind", "'length', 'terms'"),
        (GOOD + "[dpo]\nbeta = 0.2", "dpo", "leave it out"),
        (GOOD + "[rollout]\nprompts = 2", "rollout", "leave it out"),
        (GOOD + "[budget]\nmax_kl = 1", "budget", "leave it out"),
        (GOOD + "[held_out_reward]\nshare = 0.5", "held_out_reward", "leave it out"),
        (ROLLOUTS + "[budget]\nmax_kl = -1", "budget.max_kl", "greater than or equal to 0"),
        (ROLLOUTS + "[budget]\nmax_length_ratio = 0.5", "budget", "above 1"),
        (ROLLOUTS + "[budget]\nmax_kl = 1\n[rollout]\nbeta = 0", "budget", "rollout.beta"),
        (GOOD.replace("sft", "reward") + "[held_out_reward]\nshare = 0", "held_out_reward.share", "greater than 0"),
        (
            GOOD.replace('"lora"', '"none"\nuse_dora = true').replace("method", 'precision = "f32"\nmethod'),
            "adapter",
            "set both to false",
        ),
        ("[adapter]", "method", "is missing"),
    ],
)
def test_invalid_recipe_is_rejected_with_field_reason_and_remedy(wrong: str, field: str, hint: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse_recipe(wrong)
    assert refused.value.reason == "INVALID_RECIPE"
    assert hint in refused.value.field_violations[field]


def test_unknown_recipe_lists_the_known_ones() -> None:
    with pytest.raises(InvalidArgument, match=r"lora.*tiny"):
        load_recipe("../secrets")


@pytest.mark.parametrize("text", ["method = ", "a = " + "[" * 100_000, "seed = " + "9" * 5000])
def test_rejects_text_that_is_not_toml(text: str) -> None:
    with pytest.raises(InvalidArgument, match="not TOML"):
        parse_recipe(text)


def test_binary_file_is_rejected_and_hides_no_recipe(tmp_path: Path) -> None:
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "good.toml").write_text(GOOD)
    assert recipe_names(tmp_path) == ["bytes", "good"]
    with pytest.raises(InvalidArgument, match="not TOML"):
        load_stages("bytes", tmp_path)
    assert load_recipe("good", tmp_path).method == "sft"
