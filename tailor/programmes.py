"""A specialist's programme: the stages of each of its runs, in order, and the recipe of each stage. Standard library only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SFT = "sft"
# Every stage after `sft` learns from rankings.
PROGRAMMES = (
    (SFT,),
    (SFT, "dpo"),
    (SFT, "reward", "rloo"),
    (SFT, "reward", "grpo"),
    (SFT, "reward", "witness", "rloo"),
    (SFT, "reward", "witness", "grpo"),
)


@dataclass(frozen=True)
class ProgrammeStage:
    """One stage: its method and the name of its recipe."""

    stage: str
    recipe: str

    @property
    def learns_from_rankings(self) -> bool:
        """False if it learns from documents."""
        return self.stage != SFT


Programme = tuple[ProgrammeStage, ...]


def resolve_programme(stages: Sequence[str], recipe: str, recipes: Mapping[str, str]) -> Programme:
    """Each stage with its recipe: `recipe` for `sft`; for another stage that of `recipes`, or the one that is named like it.

    No stages mean only `sft`.
    """
    return tuple(
        ProgrammeStage(stage, recipe if stage == SFT else recipes.get(stage) or stage) for stage in stages or (SFT,)
    )


def list_recipes(programme: Sequence[ProgrammeStage]) -> str:
    """The recipes in order, with commas, as `tailor run create --recipe` takes them."""
    return ",".join(stage.recipe for stage in programme)


def describe_programme(programme: Sequence[ProgrammeStage]) -> str:
    """The stages in order, each with its recipe if that has another name, such as `sft (lora), dpo`."""
    return ", ".join(
        stage.stage if stage.stage == stage.recipe else f"{stage.stage} ({stage.recipe})" for stage in programme
    )


def learns_from_rankings(programme: Sequence[ProgrammeStage]) -> bool:
    """True if any stage does."""
    return any(stage.learns_from_rankings for stage in programme)
