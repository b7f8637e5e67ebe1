"""Recipes: the typed TOML settings of a training method. An unusable recipe is rejected with the field, the reason and the remedy."""

import hashlib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from services.training.recipe_parts import (
    BudgetRecipe,
    HeldOutRewardRecipe,
    Listed,
    Part,
    RewardRule,
    RolloutRecipe,
    Word,
)
from tailor.errors import InvalidArgument, NotFound, Reason

FOLDER = Path(__file__).parent / "recipes"
# Methods whose model writes answers, which are then scored.
GENERATING = ("rloo", "grpo")
# Methods that learn from rows of prompt, chosen and rejected; the generating ones only take their prompts.
FROM_PREFERENCES = ("dpo", "reward", *GENERATING)
MAX_STAGES = 8
# Of a micro-batch.
FEWEST_TOKENS = 16
# What measuring held-out loss may cost of a run, as a share of its training.
MEASURING_SHARE = 0.05
# The fields of `[adapter]` in which a stage and the adapter that it continues must agree.
SHAPE = ("r", "alpha", "target_modules", "use_rslora", "use_dora")

Factor = Annotated[float, Field(gt=0.0, le=1000.0)]


class AdapterRecipe(Part):
    """Which weights are trained.

    `lora`: low-rank matrices on a bf16 base (Hu et al. 2021, arXiv:2106.09685). `qlora`: the same on an NF4 base (Dettmers et al. 2023,
    arXiv:2305.14314). `none`: all weights. `use_rslora` scales by alpha / sqrt(r) instead of alpha / r (Kalajdzievski 2023,
    arXiv:2312.03732). `use_dora` also learns the norm of each layer (Liu et al. 2024, arXiv:2402.09353).
    """

    kind: Literal["lora", "qlora", "none"]
    r: int = Field(16, ge=1, le=256)
    alpha: int = Field(32, ge=1, le=1024)
    dropout: float = Field(0.0, ge=0.0, lt=1.0)
    target_modules: Literal["all-linear"] | Annotated[tuple[Word, ...], Listed] = "all-linear"
    use_rslora: bool = False
    use_dora: bool = False


class OptimizerRecipe(Part):
    """AdamW and its schedule. `warmup` is a share of all steps. A rate of 0 follows the width of the base and the method."""

    learning_rate: float = Field(0.0, ge=0.0, le=0.1)
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup: float = Field(0.05, ge=0.0, lt=1.0)
    weight_decay: float = Field(0.0, ge=0.0, le=1.0)
    max_gradient_norm: float = Field(1.0, gt=0.0)


class BatchRecipe(Part):
    """The size of a step: whole rows packed into micro-batches of at most `tokens` tokens, or of one longer row.

    With 0 tokens the size follows the device. `gradient_checkpointing` computes layers again instead of keeping what they computed (Chen et
    al. 2016, arXiv:1604.06174): a third slower, in a fraction of the memory; `auto` if a step fits only so.

    Rows over `max_length` tokens are left out and counted; 0 admits every row that the base can read. No row is cut.
    """

    tokens: Literal[0] | Annotated[int, Field(ge=FEWEST_TOKENS, le=1_000_000)] = 0
    max_length: int = Field(0, ge=0, le=10_000_000)
    accumulation: int = Field(1, ge=1, le=1024)
    gradient_checkpointing: Literal["auto", "on", "off"] = "auto"


class LimitRecipe(Part):
    """When a run ends: at the first of these limits. 0 means no limit."""

    epochs: float = Field(1.0, gt=0.0, le=100.0)
    max_steps: int = Field(0, ge=0, le=100_000_000)
    max_tokens: int = Field(0, ge=0, le=10**15)


class DpoRecipe(Part):
    """Direct preference optimisation (Rafailov et al. 2023, arXiv:2305.18290). A larger `beta` stays closer to the reference.

    `nll` weighs the negative log-likelihood per token of the chosen answers, in nats (Pang et al. 2024, arXiv:2404.19733): without it, both
    answers of a pair may become less likely. `length_weight` weighs the tokens beyond the length of the pair's shorter answer, so that an
    answer is not preferred for being long (Liu et al. 2024, arXiv:2409.06411): 1 counts them like the others, 0 not at all.
    """

    beta: float = Field(0.1, gt=0.0, le=10.0)
    loss: Literal["sigmoid", "ipo", "hinge"] = "sigmoid"
    nll: float = Field(0.0, ge=0.0, le=10.0)
    length_weight: float = Field(1.0, ge=0.0, le=1.0)


class SweepRecipe(Part):
    """SFT with a short trial of each learning rate on `share` of the tokens, then in full with the one that had the lowest held-out loss.

    `factors` are of the optimizer's rate.
    """

    factors: Annotated[tuple[Factor, ...], Listed] = Field(min_length=2, max_length=8)
    share: float = Field(0.2, gt=0.0, le=1.0)

    @model_validator(mode="after")
    def _check_distinct(self) -> "SweepRecipe":
        # A trial is named by its rate as it is printed.
        if len({f"{factor:g}" for factor in self.factors}) < len(self.factors):
            raise PydanticCustomError("sweep", "two factors are equal to six digits; name each once")
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
    budget: BudgetRecipe = BudgetRecipe()
    rewards: Annotated[tuple[RewardRule, ...], Listed] = ()
    sweep: SweepRecipe | None = None
    held_out_reward: HeldOutRewardRecipe | None = None
    precision: Literal["bf16", "mixed", "f32"] = "bf16"
    checkpoint_every_steps: int = Field(50, ge=1, le=100_000_000)
    seed: int = Field(7, ge=0, lt=2**32)

    @model_validator(mode="after")
    def _check_combination(self) -> "Recipe":
        if self.adapter.kind == "none" and self.precision == "bf16":
            raise PydanticCustomError(
                "precision",
                'bf16 loses small updates when all weights are trained; set precision = "mixed" or "f32"',
            )
        if self.method != "sft" and self.adapter.kind == "none":
            raise PydanticCustomError(
                "adapter",
                'only sft can train all weights, because other methods need their starting point; set adapter.kind = "lora" or "qlora"',
            )
        if self.method in {"dpo", "reward"} and self.adapter.dropout:
            raise PydanticCustomError(
                "adapter",
                "dpo and reward compare two answers under one model, which dropout would distort; set adapter.dropout = 0",
            )
        if not self.adapter.target_modules:
            raise PydanticCustomError("adapter", 'target_modules is empty; set it to "all-linear" or name layers')
        self._check_tables()
        if self.method in GENERATING:
            self._check_rollout()
        if self.batch.max_length > self.batch.tokens > 0:
            raise PydanticCustomError(
                "batch", "max_length exceeds tokens, so a long row fits no step; set batch.tokens to max_length or more"
            )
        if 0 < self.limit.max_tokens < (self.batch.tokens or FEWEST_TOKENS) * self.batch.accumulation:
            raise PydanticCustomError(
                "limit", "max_tokens is less than one step; set it to batch.tokens x batch.accumulation or more"
            )
        return self

    def fit_processor(self, *, bf16: bool) -> "Recipe":
        """The recipe for a processor: in f32 if that would only emulate bf16, many times slower."""
        return self if bf16 or self.precision == "f32" else self.model_copy(update={"precision": "f32"})

    def with_steps(self, tokens: int, accumulation: int, *, checkpointing: bool) -> "Recipe":
        """The recipe with steps of a size."""
        steps = {"tokens": tokens, "accumulation": accumulation}
        batch = self.batch.model_copy(update={**steps, "gradient_checkpointing": "on" if checkpointing else "off"})
        return self.model_copy(update={"batch": batch})

    def with_rate(self, rate: float) -> "Recipe":
        """The recipe with another learning rate."""
        return self.model_copy(update={"optimizer": self.optimizer.model_copy(update={"learning_rate": rate})})

    def with_thinking(self) -> "Recipe":
        """The recipe for a specialist whose base thinks before it answers; only rollouts differ."""
        if self.method not in GENERATING:
            return self
        return self.model_copy(update={"rollout": self.rollout.model_copy(update={"thinking": True})})

    def _check_tables(self) -> None:
        """Reject tables that the method would ignore: their author expects an effect."""
        if (self.method in GENERATING) != bool(self.rewards):
            raise PydanticCustomError(
                "rewards", "rloo and grpo need at least one [[rewards]]; no other method accepts any"
            )
        if (self.method == "sweep") != (self.sweep is not None):
            raise PydanticCustomError("sweep", "the method sweep needs [sweep]; no other method accepts it")
        if self.method != "dpo" and self.dpo != DpoRecipe():
            raise PydanticCustomError("dpo", "only the method dpo uses [dpo]; leave it out")
        if self.method not in GENERATING and self.rollout != RolloutRecipe():
            raise PydanticCustomError("rollout", "only the methods rloo and grpo use [rollout]; leave it out")
        if self.method not in GENERATING and self.budget != BudgetRecipe():
            raise PydanticCustomError("budget", "only the methods rloo and grpo use [budget]; leave it out")
        if self.method != "reward" and self.held_out_reward is not None:
            raise PydanticCustomError("held_out_reward", "only the method reward uses [held_out_reward]; leave it out")
        if self.adapter.kind == "none" and (self.adapter.use_rslora or self.adapter.use_dora):
            raise PydanticCustomError(
                "adapter", "use_rslora and use_dora only apply to low-rank matrices; set both to false"
            )

    def _check_rollout(self) -> None:
        if self.budget.max_kl and not self.rollout.beta:
            raise PydanticCustomError(
                "budget", "max_kl needs the divergence, which is not measured with rollout.beta = 0; set that above 0"
            )
        if self.rollout.prompts * self.rollout.answers % self.batch.accumulation:
            raise PydanticCustomError(
                "rollout", "prompts x answers must be a multiple of batch.accumulation; set batch.accumulation to 1"
            )
        if 0 < self.batch.max_length <= self.rollout.max_new_tokens:
            raise PydanticCustomError(
                "rollout", "max_new_tokens leaves no room for a prompt; set batch.max_length to more than both together"
            )

    @property
    def is_served_as_adapter(self) -> bool:
        """True if inference is to load the result as an adapter: neither a reward, nor all weights, nor DoRA, which are served merged."""
        return self.method != "reward" and self.adapter.kind != "none" and not self.adapter.use_dora

    def to_json(self) -> str:
        """The settings in one canonical form."""
        return self.model_dump_json()

    @property
    def digest(self) -> str:
        """SHA-256 of the settings. Recipes with the same digest train the same way."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def parse_recipe(text: str) -> Recipe:
    """Parse a recipe from TOML. Raises InvalidArgument (INVALID_RECIPE) with every wrong field, the reason and the remedy."""
    return _validate(_parse_toml(text))


def _parse_toml(text: str) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(Reason.INVALID_RECIPE, f"The recipe is not TOML: {error}.") from None


def _validate(table: dict[str, object]) -> Recipe:
    try:
        recipe = Recipe.model_validate(table)
    except ValidationError as error:
        raise _invalid("The recipe is invalid.", explain(error, Recipe)) from None
    if recipe.rollout.thinking:
        message = "follows sampling.thinking of the specialist; leave it out"
        raise _invalid("The recipe is invalid.", {"rollout.thinking": message})
    return recipe


def _invalid(summary: str, violations: Mapping[str, str]) -> InvalidArgument:
    listed = "; ".join(f"{field}: {message}" for field, message in violations.items())
    return InvalidArgument(Reason.INVALID_RECIPE, f"{summary} {listed}.", field_violations=violations)


def check_shape(recipe: Recipe, parent: Mapping[str, object]) -> None:
    """Raise InvalidArgument (INVALID_RECIPE) if the recipe contradicts the `[adapter]` table of the adapter that it continues.

    The error names each such field and the parent's value.
    """
    summary = "The recipe does not match its parent."
    if recipe.adapter.kind == "none":
        raise _invalid(summary, {"adapter.kind": 'cannot train all weights on an adapter; set "lora" or "qlora"'})
    shape = recipe.adapter.model_dump(mode="json")
    wrong = {
        f"adapter.{name}": f"is {json.dumps(shape[name])}, but the parent's is {json.dumps(parent.get(name))}; set that"
        for name in SHAPE
        if shape[name] != parent.get(name)
    }
    if wrong:
        raise _invalid(summary, wrong)


@dataclass(frozen=True)
class NamedRecipe:
    """One stage of a recipe, with its name."""

    name: str
    recipe: Recipe


def load_recipe(name: str, folder: Path = FOLDER) -> Recipe:
    """Load a recipe without stages. Raises InvalidArgument (UNKNOWN_RECIPE, INVALID_RECIPE)."""
    stages = load_stages(name, folder)
    if len(stages) != 1:
        raise InvalidArgument(Reason.INVALID_RECIPE, f"The recipe {name!r} has stages. Name one of them.")
    return stages[0].recipe


def load_stages(name: str, folder: Path = FOLDER) -> tuple[NamedRecipe, ...]:
    """Load a recipe: its stages in order, or the recipe itself if it has none. Raises InvalidArgument (UNKNOWN_RECIPE, INVALID_RECIPE).

    Names with commas between them are the stages of a recipe without a file, at most 8.
    """
    if "," in name:
        if name.count(",") >= MAX_STAGES:
            raise InvalidArgument(
                Reason.INVALID_RECIPE,
                f"A run may have at most {MAX_STAGES} stages. Name fewer recipes.",
                field_violations={"recipe": f"names more than {MAX_STAGES} recipes"},
            )
        return tuple(NamedRecipe(stage, _load_stage(stage, folder)) for stage in name.split(","))
    table = _read(name, folder)
    if "stages" not in table:
        return (NamedRecipe(name, _validate(table)),)
    if set(table) != {"stages"} or not isinstance(table["stages"], list) or not table["stages"]:
        raise InvalidArgument(
            Reason.INVALID_RECIPE,
            f"The recipe {name!r} is invalid. stages: must name at least one recipe, and be the only key.",
            field_violations={"stages": "must name at least one recipe, and be the only key"},
        )
    return tuple(NamedRecipe(str(stage), _load_stage(str(stage), folder)) for stage in table["stages"])


def digest_stages(stages: tuple[NamedRecipe, ...]) -> str:
    """The digest of a single stage, or SHA-256 of the stages' digests in order."""
    if len(stages) == 1:
        return stages[0].recipe.digest
    return hashlib.sha256("\n".join(stage.recipe.digest for stage in stages).encode()).hexdigest()


def _load_stage(name: str, folder: Path) -> Recipe:
    table = _read(name, folder)
    if "stages" in table:
        raise InvalidArgument(Reason.INVALID_RECIPE, f"stages: {name!r} has stages itself. Name those instead.")
    return _validate(table)


def _read(name: str, folder: Path) -> dict[str, object]:
    known = recipe_names(folder)
    if name not in known:
        raise InvalidArgument(
            Reason.UNKNOWN_RECIPE,
            f"There is no recipe {name!r}. Known recipes: {', '.join(known)}.",
            field_violations={"recipe": "unknown"},
        )
    return _parse_toml((folder / f"{name}.toml").read_text(encoding="utf-8", errors="surrogateescape"))


def recipe_names(folder: Path = FOLDER) -> list[str]:
    """The installation's recipes, sorted. Raises NotFound (NO_RECIPES) if the folder does not exist."""
    if not folder.is_dir():
        raise NotFound(Reason.NO_RECIPES, "The recipes folder does not exist. Set TAILOR_RECIPES_DIR.")
    return sorted(path.stem for path in folder.glob("*.toml") if path.is_file())


def explain(error: ValidationError, recipe: type[BaseModel]) -> dict[str, str]:
    """Each wrong field, by its path, with the remedy."""
    messages: dict[str, str] = {}
    for item in error.errors():
        # Parts with brackets are pydantic's names for the alternatives of a union, not keys of the recipe.
        path = [part for part in item["loc"] if isinstance(part, int) or "[" not in part]
        field = ".".join(map(str, path)) or item["type"]
        message = item["msg"]
        if item["type"] == "extra_forbidden":
            message = f"is not permitted; the keys here are {', '.join(_keys(recipe, path[:-1]))}"
        elif item["type"] == "missing":
            message = "is missing, and has no default; set it"
        messages[field] = f"{messages[field]}, or: {message}" if field in messages else message
    return messages


def _keys(model: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    for part in path:
        if isinstance(part, str):
            model = next(_models(model.model_fields[part].annotation))
    return list(model.model_fields)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)
