"""Recipes: the typed TOML settings of a training method. What cannot work is refused with field, reason and what would be right."""

import hashlib
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from services.training.recipe_errors import explain
from tailor.errors import InvalidArgument, NotFound, Reason

FOLDER = Path(__file__).parent / "recipes"
# Methods whose model writes answers that are then rewarded.
GENERATING = ("rloo", "grpo")
# Methods that learn from rows of prompt, chosen and rejected; those that generate take their prompts from them.
FROM_PREFERENCES = ("dpo", "reward", *GENERATING)


Rate = Annotated[float, Field(gt=0.0, le=0.1)]
Word = Annotated[str, Field(min_length=1, max_length=1000)]
# TOML and JSON have lists.
Listed = Strict(False)


class Part(BaseModel):
    """A part of a recipe: frozen, no key that is not known, no number in quotes, no infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class AdapterRecipe(Part):
    """What is trained: low-rank matrices on a bf16 base (`lora`) or on an NF4 one (`qlora`), or all weights (`none`)."""

    kind: Literal["lora", "qlora", "none"]
    r: int = Field(16, ge=1, le=256)
    alpha: int = Field(32, ge=1, le=1024)
    dropout: float = Field(0.0, ge=0.0, lt=1.0)
    target_modules: Literal["all-linear"] | Annotated[tuple[Word, ...], Listed] = "all-linear"
    use_rslora: bool = False
    use_dora: bool = False


class OptimizerRecipe(Part):
    """How weights move. AdamW; `warmup` is the share of all steps."""

    learning_rate: Rate
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup: float = Field(0.05, ge=0.0, lt=1.0)
    weight_decay: float = Field(0.0, ge=0.0, le=1.0)
    max_gradient_norm: float = Field(1.0, gt=0.0)


class BatchRecipe(Part):
    """What a step sees: rows packed whole into `tokens` at most; a row over `max_length` tokens is cut at its end."""

    tokens: int = Field(1024, ge=16, le=1_000_000)
    max_length: int = Field(1024, ge=16, le=131_072)
    accumulation: int = Field(1, ge=1, le=1024)


class LimitRecipe(Part):
    """When a run ends: whichever of these is met first. 0 means no such limit."""

    epochs: float = Field(1.0, gt=0.0, le=100.0)
    max_steps: int = Field(0, ge=0, le=100_000_000)
    max_tokens: int = Field(0, ge=0, le=10**15)


class DpoRecipe(Part):
    """Direct preference optimisation (Rafailov et al. 2023). A larger `beta` stays closer to where the stage started."""

    beta: float = Field(0.1, gt=0.0, le=10.0)
    loss: Literal["sigmoid", "ipo", "hinge"] = "sigmoid"


class RolloutRecipe(Part):
    """What a step of RLOO or GRPO lets the model write: `answers` to each of `prompts`. `beta` weighs the divergence (nats) from where the
    stage started against the reward."""

    prompts: int = Field(4, ge=1, le=1024)
    answers: int = Field(4, ge=2, le=64)
    max_new_tokens: int = Field(64, ge=4, le=8192)
    temperature: float = Field(1.0, gt=0.0, le=2.0)
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    beta: float = Field(0.05, ge=0.0, le=10.0)


class RewardRule(Part):
    """One part of the reward of an answer. `model`: a reward adapter, of the run's own `reward` stage or the newest of the specialist.
    `length`: 1 up to `words` words, falling to 0 at twice as many. `terms`: the share of `terms` that it has. `pattern`: 1 where the
    regular expression `pattern` matches somewhere."""

    kind: Literal["model", "length", "terms", "pattern"]
    weight: float = Field(1.0, gt=0.0, le=100.0)
    words: int = Field(0, ge=0, le=10_000)
    terms: Annotated[tuple[Word, ...], Listed] = ()
    pattern: str = ""

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> "RewardRule":
        needed = {"length": "words", "terms": "terms", "pattern": "pattern"}.get(self.kind, "")
        if needed and not getattr(self, needed):
            raise PydanticCustomError("reward", f"a reward of kind {self.kind!r} needs `{needed}`")
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise PydanticCustomError("reward", f"`pattern` is no regular expression: {error}") from None
        return self


class SweepRecipe(Part):
    """SFT with a short trial of each learning rate on `share` of the tokens; the one with the lowest held-out loss is then trained in full.
    `optimizer.learning_rate` is not used."""

    learning_rates: Annotated[tuple[Rate, ...], Listed] = Field(min_length=2, max_length=8)
    share: float = Field(0.2, gt=0.0, le=1.0)

    @model_validator(mode="after")
    def _differ(self) -> "SweepRecipe":
        # A trial is known by its rate as it is printed.
        if len({f"{rate:g}" for rate in self.learning_rates}) < len(self.learning_rates):
            raise PydanticCustomError("sweep", "two learning_rates are the same to six digits; name each once")
        return self


class Recipe(Part):
    """The settings of one training method."""

    method: Literal["sft", "dpo", "reward", "rloo", "grpo", "sweep"]
    adapter: AdapterRecipe
    optimizer: OptimizerRecipe
    batch: BatchRecipe = BatchRecipe()
    limit: LimitRecipe = LimitRecipe()
    dpo: DpoRecipe = DpoRecipe()
    rollout: RolloutRecipe = RolloutRecipe()
    rewards: Annotated[tuple[RewardRule, ...], Listed] = ()
    sweep: SweepRecipe | None = None
    precision: Literal["bf16", "mixed", "f32"] = "bf16"
    checkpoint_every_steps: int = Field(50, ge=1, le=100_000_000)
    seed: int = Field(7, ge=0, lt=2**32)

    @model_validator(mode="after")
    def _fits_together(self) -> "Recipe":
        if self.adapter.kind == "none" and self.precision == "bf16":
            raise PydanticCustomError(
                "precision",
                'bf16 weights lose small updates when all of them are trained; set precision = "mixed" or "f32"',
            )
        if self.method != "sft" and self.adapter.kind == "none":
            raise PydanticCustomError(
                "adapter",
                'only sft trains all weights; set adapter.kind = "lora" or "qlora", so that where it started stays at hand',
            )
        if self.method in {"dpo", "reward"} and self.adapter.dropout:
            raise PydanticCustomError(
                "adapter",
                "dpo and reward compare what one model says of two answers, and dropout would blur it; set adapter.dropout = 0",
            )
        if not self.adapter.target_modules:
            raise PydanticCustomError("adapter", 'target_modules is empty; set it to "all-linear" or name layers')
        self._has_its_tables()
        if self.method in GENERATING:
            self._rolls_out()
        if self.batch.max_length > self.batch.tokens:
            raise PydanticCustomError(
                "batch", "max_length is over tokens, so a long row fits no step; set batch.tokens to max_length or more"
            )
        if 0 < self.limit.max_tokens < self.batch.tokens * self.batch.accumulation:
            raise PydanticCustomError(
                "limit", "max_tokens is less than one step takes; set it to batch.tokens x batch.accumulation or more"
            )
        return self

    def _has_its_tables(self) -> None:
        """What would not be used is refused: whoever wrote it expects something of it."""
        if (self.method in GENERATING) != bool(self.rewards):
            raise PydanticCustomError(
                "rewards", "rloo and grpo need at least one [[rewards]], and no other method takes any"
            )
        if (self.method == "sweep") != (self.sweep is not None):
            raise PydanticCustomError("sweep", "[sweep] belongs to the method sweep, which needs it")
        if self.method != "dpo" and self.dpo != DpoRecipe():
            raise PydanticCustomError("dpo", "[dpo] belongs to the method dpo; leave it out")
        if self.method not in GENERATING and self.rollout != RolloutRecipe():
            raise PydanticCustomError("rollout", "[rollout] belongs to the methods rloo and grpo; leave it out")
        if self.adapter.kind == "none" and (self.adapter.use_rslora or self.adapter.use_dora):
            raise PydanticCustomError(
                "adapter",
                "use_rslora and use_dora change low-rank matrices, and all weights have none; set both to false",
            )

    def _rolls_out(self) -> None:
        if self.rollout.prompts * self.rollout.answers % self.batch.accumulation:
            raise PydanticCustomError(
                "rollout", "a step's prompts x answers must split into batch.accumulation equal parts; set it to 1"
            )
        if self.rollout.max_new_tokens >= self.batch.max_length:
            raise PydanticCustomError(
                "rollout", "max_new_tokens leaves no room for a prompt; set batch.max_length over it, prompt included"
            )

    def to_json(self) -> str:
        """The settings in one canonical form."""
        return self.model_dump_json()

    @property
    def digest(self) -> str:
        """SHA-256 of the settings: two recipes with the same digest train the same."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def parse_recipe(text: str) -> Recipe:
    """A recipe from TOML. InvalidArgument (INVALID_RECIPE) names every wrong field, why, and what would be right."""
    return _validated(_to_table(text))


def _to_table(text: str) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(Reason.INVALID_RECIPE, f"The recipe is not TOML: {error}.") from None


def _validated(table: dict[str, object]) -> Recipe:
    try:
        return Recipe.model_validate(table)
    except ValidationError as error:
        violations = explain(error, Recipe)
        listed = "; ".join(f"{field}: {message}" for field, message in violations.items())
        raise InvalidArgument(
            Reason.INVALID_RECIPE, f"The recipe is wrong. {listed}.", field_violations=violations
        ) from None


@dataclass(frozen=True)
class NamedRecipe:
    """One stage of what a name means."""

    name: str
    recipe: Recipe


def load_recipe(name: str, folder: Path = FOLDER) -> Recipe:
    """A recipe of the installation by name; InvalidArgument (UNKNOWN_RECIPE, INVALID_RECIPE), also where it has stages."""
    stages = load_stages(name, folder)
    if len(stages) != 1:
        raise InvalidArgument(Reason.INVALID_RECIPE, f"The recipe {name!r} has stages; name one of them.")
    return stages[0].recipe


def load_stages(name: str, folder: Path = FOLDER) -> tuple[NamedRecipe, ...]:
    """What a name means: one recipe, or those that its `stages` name, in order. InvalidArgument (UNKNOWN_RECIPE, INVALID_RECIPE)."""
    table = _read(name, folder)
    if "stages" not in table:
        return (NamedRecipe(name, _validated(table)),)
    if set(table) != {"stages"} or not isinstance(table["stages"], list) or not table["stages"]:
        raise InvalidArgument(
            Reason.INVALID_RECIPE,
            f"The recipe {name!r} is wrong. stages: a recipe with stages has nothing else, and names at least one recipe.",
            field_violations={"stages": "names recipes, and stands alone"},
        )
    return tuple(NamedRecipe(str(stage), _single(str(stage), folder)) for stage in table["stages"])


def digest_of(stages: tuple[NamedRecipe, ...]) -> str:
    """SHA-256 of what will be trained: of the recipe where there is one, else of the digests in order."""
    if len(stages) == 1:
        return stages[0].recipe.digest
    return hashlib.sha256("\n".join(stage.recipe.digest for stage in stages).encode()).hexdigest()


def _single(name: str, folder: Path) -> Recipe:
    table = _read(name, folder)
    if "stages" in table:
        raise InvalidArgument(Reason.INVALID_RECIPE, f"stages: {name!r} has stages itself; name those.")
    return _validated(table)


def _read(name: str, folder: Path) -> dict[str, object]:
    known = recipe_names(folder)
    if name not in known:
        raise InvalidArgument(
            Reason.UNKNOWN_RECIPE,
            f"There is no recipe {name!r}; there are {', '.join(known)}.",
            field_violations={"recipe": "unknown"},
        )
    return _to_table((folder / f"{name}.toml").read_text(encoding="utf-8", errors="surrogateescape"))


def recipe_names(folder: Path = FOLDER) -> list[str]:
    """The installation's recipes, by name; NotFound (NO_RECIPES) where the folder is missing."""
    if not folder.is_dir():
        raise NotFound(Reason.NO_RECIPES, "The recipes' folder does not exist.")
    return sorted(path.stem for path in folder.glob("*.toml") if path.is_file())
