"""Parts of a recipe: what all of them have in common, and the tables of the methods that write answers."""

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, Strict, model_validator
from pydantic_core import PydanticCustomError

# Steps whose answers are averaged before their length counts.
LENGTH_STEPS = 4

Word = Annotated[str, Field(min_length=1, max_length=1000)]
# TOML and JSON have lists, the recipe has tuples.
Listed = Strict(False)


class Part(BaseModel):
    """A part of a recipe: frozen; rejects unknown keys, numbers in quotes, infinities and NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class RolloutRecipe(Part):
    """What the model writes in a step of RLOO or GRPO: `answers` answers to each of `prompts` prompts.

    `beta` weighs the divergence (nats) from the start of the stage against the reward. RLOO: Ahmadian et al. 2024, arXiv:2402.14740.
    GRPO: Shao et al. 2024, arXiv:2402.03300.

    With `mask_truncated`, nothing is learned from an answer that `max_new_tokens` cut off, because its reward says nothing about its end
    (overlong filtering: Yu et al. 2025, arXiv:2503.14476, section 3.4).

    With `thinking`, which is the specialist's and no setting of a file, answers begin with a thought, which `max_new_tokens` includes.
    """

    prompts: int = Field(4, ge=1, le=1024)
    answers: int = Field(4, ge=2, le=64)
    max_new_tokens: int = Field(64, ge=4, le=8192)
    temperature: float = Field(1.0, gt=0.0, le=2.0)
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    beta: float = Field(0.05, ge=0.0, le=10.0)
    mask_truncated: bool = True
    thinking: bool = False


class BudgetRecipe(Part):
    """How far RLOO and GRPO may move from the start of the stage. 0 means no limit.

    A run that exceeds `max_kl` ends, and keeps the weights of the last step that was within it. `max_kl` is the divergence from the start
    in nats per token of a step's answers. The further a model is from its start, the higher its score by the reward model, but from
    some divergence on the answers get worse (Gao et al. 2022, arXiv:2210.10760).

    `max_length_ratio` is the factor by which the answers may become longer or shorter: the mean length over `LENGTH_STEPS` steps compared
    with that of the first ones. Reward models prefer long answers for being long (Singhal et al. 2023, arXiv:2310.03716). Beyond it, the
    run ends like at `max_kl`, or goes on with a warning, as `on_length` says.
    """

    max_kl: float = Field(0.0, ge=0.0, le=1000.0)
    max_length_ratio: float = Field(0.0, ge=0.0, le=1000.0)
    on_length: Literal["stop", "warn"] = "warn"

    @model_validator(mode="after")
    def _check_ratio(self) -> "BudgetRecipe":
        if 0.0 < self.max_length_ratio <= 1.0:
            raise PydanticCustomError(
                "budget", "max_length_ratio must be above 1, such as 2 for half to twice the length, or 0 for no limit"
            )
        return self


class HeldOutRewardRecipe(Part):
    """Makes a reward model a held-out reward model: it scores the answers of `rloo` and `grpo` too, but nothing is learned from its scores.

    It learns from the pairs of `share` of the prompts, drawn by the recipe's seed, so its mistakes are not those of the reward model. If
    the reward rises but the held-out reward does not, the policy learns the mistakes of the reward model (ensembles: Coste et al. 2023,
    arXiv:2310.02743).
    """

    share: float = Field(0.5, gt=0.0, le=1.0)


class RewardRule(Part):
    """One term of an answer's reward.

    - `model`: the score of a reward adapter, of the run's own `reward` stage or the specialist's newest.
    - `length`: 1 up to `words` words, falling linearly to 0 at twice that number.
    - `terms`: the share of `terms` that the answer contains.
    - `pattern`: 1 if the regular expression `pattern` matches anywhere, else 0.
    """

    kind: Literal["model", "length", "terms", "pattern"]
    weight: float = Field(1.0, gt=0.0, le=100.0)
    words: int = Field(0, ge=0, le=10_000)
    terms: Annotated[tuple[Word, ...], Listed] = ()
    pattern: str = ""

    @model_validator(mode="after")
    def _check_fields(self) -> "RewardRule":
        needed = {"length": "words", "terms": "terms", "pattern": "pattern"}.get(self.kind, "")
        if needed and not getattr(self, needed):
            raise PydanticCustomError("reward", f"a reward of kind {self.kind!r} needs `{needed}`")
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise PydanticCustomError("reward", f"`pattern` is not a valid regular expression: {error}") from None
        return self
