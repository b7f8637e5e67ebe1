"""What a recipe's adapter must have in common with the adapter that it goes on from."""

import json
from collections.abc import Mapping

from services.training.recipe import Recipe
from tailor.errors import InvalidArgument, Reason

SHAPE = ("r", "alpha", "target_modules", "use_rslora", "use_dora")


def check_shape(recipe: Recipe, theirs: Mapping[str, object]) -> None:
    """InvalidArgument (INVALID_RECIPE) names each field of the recipe that contradicts the parent's `[adapter]`, and the parent's value."""
    if recipe.adapter.kind == "none":
        raise _refused({"adapter.kind": 'all weights cannot be trained on top of an adapter; set "lora" or "qlora"'})
    ours = recipe.adapter.model_dump(mode="json")
    wrong = {
        f"adapter.{name}": f"is {json.dumps(ours[name])}, and the parent's is {json.dumps(theirs.get(name))}; set that"
        for name in SHAPE
        if ours[name] != theirs.get(name)
    }
    if wrong:
        raise _refused(wrong)


def _refused(violations: dict[str, str]) -> InvalidArgument:
    listed = "; ".join(f"{field}: {message}" for field, message in violations.items())
    return InvalidArgument(
        Reason.INVALID_RECIPE, f"The recipe does not fit its parent. {listed}.", field_violations=violations
    )
