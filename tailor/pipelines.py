"""A specialist's pipeline: the stages of each of its runs, in order, and the recipe of each stage. Standard library only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SFT = "sft"
# Every stage after `sft` learns from rankings.
PIPELINES = (
    (SFT,),
    (SFT, "dpo"),
    (SFT, "reward", "rloo"),
    (SFT, "reward", "grpo"),
    (SFT, "reward", "held_out_reward", "rloo"),
    (SFT, "reward", "held_out_reward", "grpo"),
)


@dataclass(frozen=True)
class PipelineStage:
    """One stage: its method and the name of its recipe."""

    stage: str
    recipe: str

    @property
    def learns_from_rankings(self) -> bool:
        """False if it learns from documents."""
        return self.stage != SFT


Pipeline = tuple[PipelineStage, ...]


def resolve_pipeline(stages: Sequence[str], recipe: str, recipes: Mapping[str, str]) -> Pipeline:
    """Each stage with its recipe: `recipe` for `sft`; for another stage that of `recipes`, or the one that is named like it.

    No stages mean only `sft`.
    """
    return tuple(
        PipelineStage(stage, recipe if stage == SFT else recipes.get(stage) or stage) for stage in stages or (SFT,)
    )


def list_recipes(pipeline: Sequence[PipelineStage]) -> str:
    """The recipes in order, with commas, as `tailor run create --recipe` takes them."""
    return ",".join(stage.recipe for stage in pipeline)


def describe_pipeline(pipeline: Sequence[PipelineStage]) -> str:
    """The stages in order, each with its recipe if that has another name, such as `sft (lora), dpo`."""
    return ", ".join(
        stage.stage if stage.stage == stage.recipe else f"{stage.stage} ({stage.recipe})" for stage in pipeline
    )


def learns_from_rankings(pipeline: Sequence[PipelineStage]) -> bool:
    """True if any stage does."""
    return any(stage.learns_from_rankings for stage in pipeline)
