"""What a recipe's adapter must have in common with the adapter that it goes on from."""

from services.training.adapters.inputs import StoredAdapter
from services.training.recipe import Recipe
from services.training.shapes import check_shape


def check_parent(recipe: Recipe, parent: StoredAdapter) -> None:
    """InvalidArgument (INVALID_RECIPE) names each field of the recipe that contradicts the parent, and the parent's value."""
    check_shape(recipe, parent.manifest["recipe"]["adapter"])
