"""Random and mutated inputs for a target, by hypothesis, which shrinks what fails."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.database import ExampleDatabase

from tests.fuzz.targets import OWN_ERRORS, Target

# Pieces that parsers trip over.
DICTIONARY = (
    b"\0", b"\xff", b"\xff\xfe", b"\xef\xbb\xbf", b"\r\n", b"-1", b"9" * 30, b"1e999", b"NaN", b"Infinity", b"null", b"true",
    b"[", b"]" * 50, b"[" * 2_000, b"{" * 50, b'"', b"\\u0000", b"\\ud800", b"../../etc/passwd", b"a" * 3_000, b"%s%n", b"<!DOCTYPE a>",
    b"=", b".", b",", "\u202e\u200b\u00ad".encode(), b"\x80" * 9, b"\x7f",
)  # fmt: skip
MAX_EDITS = 6
SHOWN_BYTES = 200


@st.composite
def inputs(draw: Any, seeds: Sequence[bytes]) -> bytes:
    """Anything, or a seed after some edits."""
    if draw(st.integers(0, 9)) == 0:
        return bytes(draw(st.binary(max_size=400)))
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, MAX_EDITS))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 40)))
        piece = draw(st.one_of(st.sampled_from(DICTIONARY), st.binary(max_size=8), st.just(bytes(data[start:end]) * 2)))
        keep = draw(st.booleans())
        data[start : start if keep else end] = piece
    return bytes(data)


@cache
def _seeds_of(target: Target) -> tuple[bytes, ...]:
    return tuple(target.seeds())


class Found(Exception):
    """An input that ended in a foreign error, shrunk, with that error as its cause."""

    def __init__(self, target: str, data: bytes) -> None:
        super().__init__(f"{target}: {data[:SHOWN_BYTES]!r} ({len(data)} bytes)")
        self.data = data


def check(target: Target, data: bytes) -> None:
    """Read an input. Raises Found if it ends in an error that is not one of Tailor's own."""
    try:
        target.read(data)
    except OWN_ERRORS:
        return
    except Exception as error:
        raise Found(target.name, data) from error


def attack(target: Target, examples: int, database: ExampleDatabase | None = None) -> None:
    """Try a number of inputs: always the same ones without a database, new ones and those that failed before with one. Raises Found."""

    @settings(
        max_examples=examples,
        database=database,
        derandomize=database is None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.reuse, Phase.generate, Phase.shrink],
    )
    @given(data=inputs(_seeds_of(target)))
    def run(data: bytes) -> None:
        check(target, data)

    run()
