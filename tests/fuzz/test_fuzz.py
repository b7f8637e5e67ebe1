"""The short, deterministic part of `make fuzz`: every run tries the same inputs, and those that were found before."""

from pathlib import Path

import pytest

from tests.fuzz.attack import attack, check
from tests.fuzz.targets import TARGETS, Target

pytestmark = pytest.mark.release

KEPT = Path(__file__).parent / "kept"
EXAMPLES, SLOW_EXAMPLES = 150, 25

every_target = pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)


@every_target
def test_no_input_ends_in_a_foreign_error(target: Target) -> None:
    attack(target, SLOW_EXAMPLES if target.slow else EXAMPLES)


@every_target
def test_the_seeds_are_read_without_a_foreign_error(target: Target) -> None:
    seeds = target.seeds()
    assert seeds
    for data in seeds:
        check(target, data)


@pytest.mark.parametrize("path", sorted(KEPT.glob("*/*.bin")), ids=lambda path: f"{path.parent.name}-{path.stem[:8]}")
def test_what_was_found_once_is_not_found_again(path: Path) -> None:
    check(TARGETS[path.parent.name], path.read_bytes())
