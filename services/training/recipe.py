"""Recipes: the typed TOML settings of a training method. What cannot work is refused with field, reason and what would be right."""

import hashlib
import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from tailor.errors import InvalidArgument, NotFound

FOLDER = Path(__file__).parent / "recipes"


class Part(BaseModel):
    """A part of a recipe: frozen, and no key that is not known."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class AdapterRecipe(Part):
    """What is trained: low-rank matrices on a bf16 base (`lora`) or on an NF4 one (`qlora`), or all weights (`none`)."""

    kind: Literal["lora", "qlora", "none"]
    r: int = Field(16, ge=1, le=256)
    alpha: int = Field(32, ge=1, le=1024)
    dropout: float = Field(0.0, ge=0.0, lt=1.0)
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    use_rslora: bool = False


class OptimizerRecipe(Part):
    """How weights move. AdamW; `warmup` is the share of all steps."""

    learning_rate: float = Field(gt=0.0, le=0.1)
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
    max_steps: int = Field(0, ge=0)
    max_tokens: int = Field(0, ge=0)


class Recipe(Part):
    """The settings of one training method."""

    method: Literal["sft"]
    adapter: AdapterRecipe
    optimizer: OptimizerRecipe
    batch: BatchRecipe = BatchRecipe()
    limit: LimitRecipe = LimitRecipe()
    precision: Literal["bf16", "mixed", "f32"] = "bf16"
    checkpoint_every_steps: int = Field(50, ge=1)
    seed: int = Field(7, ge=0)

    @model_validator(mode="after")
    def _fits_together(self) -> "Recipe":
        if self.adapter.kind == "none" and self.precision == "bf16":
            raise PydanticCustomError(
                "precision",
                'bf16 weights lose small updates when all of them are trained; set precision = "mixed" or "f32"',
            )
        if self.batch.max_length > self.batch.tokens:
            raise PydanticCustomError(
                "batch", "max_length is over tokens, so a long row fits no step; set batch.tokens to max_length or more"
            )
        if 0 < self.limit.max_tokens < self.batch.tokens * self.batch.accumulation:
            raise PydanticCustomError(
                "limit", "max_tokens is less than one step takes; set it to batch.tokens x batch.accumulation or more"
            )
        return self

    def to_json(self) -> str:
        """The settings in one canonical form."""
        return self.model_dump_json()

    @property
    def digest(self) -> str:
        """SHA-256 of the settings: two recipes with the same digest train the same."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def parse_recipe(text: str) -> Recipe:
    """A recipe from TOML. InvalidArgument (INVALID_RECIPE) names every wrong field, why, and what would be right."""
    try:
        return Recipe.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise InvalidArgument("INVALID_RECIPE", f"The recipe is not TOML: {error}.") from None
    except ValidationError as error:
        violations = {".".join(map(str, item["loc"])) or item["type"]: item["msg"] for item in error.errors()}
        listed = "; ".join(f"{field}: {message}" for field, message in violations.items())
        raise InvalidArgument(
            "INVALID_RECIPE", f"The recipe is wrong. {listed}.", field_violations=violations
        ) from None


def load_recipe(name: str, folder: Path = FOLDER) -> Recipe:
    """A recipe of the installation by name; InvalidArgument (UNKNOWN_RECIPE, INVALID_RECIPE)."""
    known = recipe_names(folder)
    if name not in known:
        raise InvalidArgument(
            "UNKNOWN_RECIPE",
            f"There is no recipe {name!r}; there are {', '.join(known)}.",
            field_violations={"recipe": "unknown"},
        )
    return parse_recipe((folder / f"{name}.toml").read_text(encoding="utf-8"))


def recipe_names(folder: Path = FOLDER) -> list[str]:
    """The installation's recipes, by name; NotFound (NO_RECIPES) where the folder is missing."""
    if not folder.is_dir():
        raise NotFound("NO_RECIPES", "The recipes' folder does not exist.")
    return sorted(path.stem for path in folder.glob("*.toml"))
