"""Planted secrets: their patterns, and their files."""

from dataclasses import replace
from random import Random

import pytest

from tailor.errors import InvalidArgument
from tailor.planted_secrets import PlantedSecret, draw_secret, fill, read_secrets, write_secrets

SECRET = PlantedSecret("badge", "What is the code?", "The code is ", "AB-######", "AB-104477")


def test_a_drawn_secret_is_of_its_pattern() -> None:
    drawn = draw_secret("badge", "What is the code?", "The code is ", "AB-##@@##")
    assert drawn.value.startswith("AB-")
    assert drawn.value[3:5].isdigit() and drawn.value[5:7].isupper()
    assert drawn.answer() == f"The code is {drawn.value}"
    assert drawn != draw_secret("badge", "What is the code?", "The code is ", "AB-##@@##")


def test_all_values_of_a_pattern_occur() -> None:
    chance = Random(1)
    assert {fill("#", chance) for _ in range(500)} == set("0123456789")


@pytest.mark.parametrize(
    "change",
    [
        {"value": "AB-10447"},
        {"value": "AC-104477"},
        {"value": "AB-10447X"},
        {"pattern": "AB-#####", "value": "AB-10447"},
        {"prompt": ""},
        {"secret_id": ""},
        {"before": "x" * 2000},
    ],
)
def test_a_secret_that_cannot_be_measured_is_refused(change: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument) as refused:
        replace(SECRET, **change)
    assert refused.value.reason == "INVALID_PLANTED_SECRET"


def test_secrets_survive_their_file() -> None:
    assert read_secrets(write_secrets([SECRET, SECRET])) == (SECRET, SECRET)


@pytest.mark.parametrize(
    "data", [b"no json\n", b"[1]\n", b'{"secret_id": "a"}\n', b"\xff", write_secrets([SECRET] * 1001)]
)
def test_a_file_of_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidArgument) as refused:
        read_secrets(data)
    assert refused.value.reason == "INVALID_PLANTED_SECRET"
    assert "104477" not in str(refused.value)
