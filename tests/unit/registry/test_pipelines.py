"""Pipelines of specialists, and the progress towards a round."""

from dataclasses import replace

import pytest

from services.registry.domain import Draft, RebuildPolicy, Specialist
from services.registry.rules.checks import check_specialist
from services.registry.rules.pipelines import find_ranked_prompts, measure_round
from services.registry.wire import from_round, from_specialist, to_specialist
from tailor.errors import InvalidArgument
from tailor.pipelines import list_recipes
from tailor.rounds import is_held_out, measure_progress
from tailor.storage.ref import Ref

TEXT = Ref("s3://drafts/texts/a.json", "a" * 64, 2)
LEARNS = Specialist("reports", "tiny", "lora", stages=("sft", "dpo"))


def draft(prompt: str, answer: str, **changes: object) -> Draft:
    known = Draft(f"{prompt}-{answer}", "reports", "a1", "d1", "key_1", prompt, answer, text=TEXT)
    return replace(known, **changes)  # type: ignore[arg-type]


def by_id(*drafts: Draft) -> dict[str, Draft]:
    return {item.draft_id: item for item in drafts}


@pytest.mark.parametrize(
    "stages",
    [
        (),
        ("sft",),
        ("sft", "dpo"),
        ("sft", "reward", "rloo"),
        ("sft", "reward", "grpo"),
        ("sft", "reward", "held_out_reward", "rloo"),
    ],
)
def test_known_pipelines_pass(stages: tuple[str, ...]) -> None:
    check_specialist(replace(LEARNS, stages=stages))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"stages": ("dpo",)}, "stages"),
        ({"stages": ("sft", "rloo")}, "stages"),
        ({"recipes": {"sft": "lora"}}, "recipes.sft"),
        ({"recipes": {"reward": "reward"}}, "recipes.reward"),
        ({"recipes": {"dpo": "../dpo"}}, "recipes.dpo"),
        ({"rebuild": RebuildPolicy(min_ranked_prompts=-1)}, "rebuild.min_ranked_prompts"),
    ],
)
def test_unusable_pipelines_are_refused_with_the_field(changes: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        check_specialist(replace(LEARNS, **changes))  # type: ignore[arg-type]
    assert list(refused.value.field_violations) == [field]


def test_a_stage_without_a_recipe_has_the_one_of_its_name() -> None:
    assert list_recipes(LEARNS.pipeline) == "lora,dpo"
    assert list_recipes(replace(LEARNS, recipes={"dpo": "gentle"}).pipeline) == "lora,gentle"
    assert list_recipes(Specialist("reports", "tiny", "lora").pipeline) == "lora"


def test_a_pipeline_survives_the_wire() -> None:
    definition = replace(LEARNS, recipes={"dpo": "gentle"}, rebuild=RebuildPolicy(min_ranked_prompts=8))
    assert to_specialist(from_specialist(definition)) == definition


def test_progress_says_how_many_prompts_are_to_go() -> None:
    drafts = [draft(f"p{number}", answer) for number in range(9) for answer in "ab"]
    rankings = [(f"p{number}-a", f"p{number}-b") for number in range(9)]
    progress = measure_round(LEARNS, rankings, by_id(*drafts))
    assert progress is not None
    assert progress.sentence == "9 ranked prompts; a round needs 42: 33 to go."
    assert from_round(progress).missing_prompts == 33
    quarter = replace(LEARNS, rows=replace(LEARNS.rows, held_out_percent=25))
    enough = measure_round(quarter, rankings, by_id(*drafts))
    assert enough is not None and enough.sentence == "9 ranked prompts; a round needs 32: 23 to go."


def test_progress_waits_for_held_out_prompts_too() -> None:
    progress = measure_progress(50, 3, min_ranked_prompts=0, percent=12)
    assert (progress.missing, progress.needed_held_out) == (17, 5)
    assert "3 of them held out; a round needs 5 held out: about 17 to go." in progress.sentence
    assert measure_progress(50, 5, min_ranked_prompts=0, percent=12).sentence.endswith("enough for a round.")
    assert measure_progress(8, 1, min_ranked_prompts=8, percent=12).missing == 0


def test_a_pipeline_without_rankings_has_no_round() -> None:
    assert measure_round(replace(LEARNS, stages=()), [("a", "b")], {}) is None


@pytest.mark.parametrize(
    ("worse", "counts"),
    [
        (draft("p", "b"), True),
        (draft("p", "b", text=None), False),
        (draft("p", "b", specialist=""), False),
        (draft("q", "b"), False),
        (draft("p", "a", draft_id="again"), False),
    ],
)
def test_only_different_stored_drafts_of_one_prompt_count(worse: Draft, counts: bool) -> None:
    better = draft("p", "a")
    found = find_ranked_prompts("reports", [(better.draft_id, worse.draft_id)], by_id(better, worse))
    assert found == ({"p"} if counts else set())


def test_a_tie_between_experts_does_not_count_until_a_majority_decides() -> None:
    first, second = draft("p", "a"), draft("p", "b")
    votes = [("p-a", "p-b"), ("p-b", "p-a")]
    assert find_ranked_prompts("reports", votes, by_id(first, second)) == set()
    assert find_ranked_prompts("reports", [*votes, ("p-b", "p-a")], by_id(first, second)) == {"p"}


def test_the_split_is_a_fixed_hash() -> None:
    assert [number for number in range(60) if is_held_out(f"prompt{number}", 12)] == [12, 33, 40, 42, 52, 59]
    assert all(is_held_out(f"prompt{n}", 30) for n in range(99) if is_held_out(f"prompt{n}", 12))
