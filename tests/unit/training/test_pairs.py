"""Which pairs a held-out reward model learns from, in training and in its plan."""

from services.training.methods.pairs import Pair, draw_prompts, prompt_digest
from services.training.methods.reward import draw_pairs
from services.training.planning.loads import Lengths, count
from services.training.recipe import Recipe, load_recipe
from tailor.chat import Encoded

DIGESTS = [f"{number:064x}" for number in range(40)]


def pair(prompt: int, number: int) -> Pair:
    answer = (prompt, 7, 8, *(9 for _ in range(number)))
    return Pair(f"row_{prompt}_{number}", Encoded("", answer, 1), Encoded("", (prompt, 9, 9), 1))


def recipe(share: float) -> Recipe:
    return Recipe.model_validate(load_recipe("held_out_reward").model_dump() | {"held_out_reward": {"share": share}})


def test_draws_its_share_of_the_prompts_by_seed() -> None:
    drawn = draw_prompts(DIGESTS, 0.5, 11)
    assert len(drawn) == 20
    assert drawn == draw_prompts(reversed(DIGESTS), 0.5, 11) != draw_prompts(DIGESTS, 0.5, 12)
    assert len(draw_prompts(DIGESTS[:3], 0.01, 11)) == 1


def test_most_drawn_prompts_are_drawn_again_when_experts_rank_more() -> None:
    assert len(draw_prompts(DIGESTS[:20], 0.5, 11) & draw_prompts(DIGESTS, 0.5, 11)) >= 7


def test_all_pairs_of_a_drawn_prompt_are_learned() -> None:
    every = [pair(prompt, number) for prompt in range(10) for number in range(3)]
    drawn = draw_pairs(every, recipe(0.5))
    assert len(drawn) == 15
    assert len({prompt_digest(item) for item in drawn}) == 5
    assert draw_pairs(every, load_recipe("reward")) == every


def test_plan_counts_the_pairs_that_are_trained_on() -> None:
    every = [pair(prompt, prompt % 3) for prompt in range(10)]
    by_prompt = [Pair(prompt_digest(item), item.chosen, item.rejected) for item in every]
    load = count(Lengths(rows=10, scale=1.0, context=512, pairs=by_prompt), recipe(0.5))
    trained = draw_pairs(every, recipe(0.5))
    assert load.rows == len(trained) == 5
    assert load.tokens % max(item.padded for item in trained) == 0
