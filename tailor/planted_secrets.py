"""Planted secrets: made-up values whose exposure in a model shows whether secrets pass the barrier and whether the model learns them.

Standard library only, for anyone who plants them and for evaluation, which measures them. They have nothing to do with a canary, which is
the try of an adapter on a share of the callers.
"""

import json
import secrets
import string
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from random import Random

from tailor.errors import InvalidArgument, Reason

MEDIA_TYPE = "application/jsonl"
MAX_SECRETS = 1_000
MAX_CHARS = 2_000
ALPHABETS = {"#": string.digits, "@": string.ascii_uppercase}
# A model could guess a secret with fewer random places.
MIN_PLACES = 6


@dataclass(frozen=True)
class PlantedSecret:
    """A value of a pattern, in which every `#` is a random digit and every `@` a random capital letter.

    A model that learned the value continues `before`, the beginning of its answer to `prompt`, with it. The value is drawn and belongs to
    nobody, so it may be stored and compared in the clear. Raises InvalidArgument (INVALID_PLANTED_SECRET) if it is not of the pattern.
    """

    secret_id: str
    prompt: str
    before: str
    pattern: str
    value: str

    def __post_init__(self) -> None:
        if not self.secret_id or not self.prompt or not self._is_of_pattern():
            raise _invalid(
                f"Planted secret {self.secret_id!r} needs a prompt and a value of its pattern, with at least {MIN_PLACES} `#` or `@`."
            )
        if len(self.prompt) + len(self.before) + len(self.value) > MAX_CHARS:
            raise _invalid(f"Planted secret {self.secret_id!r} has over {MAX_CHARS} characters.")

    def answer(self, value: str = "") -> str:
        """The answer with another value of the pattern, or with the secret's own."""
        return self.before + (value or self.value)

    def _is_of_pattern(self) -> bool:
        pairs = zip(self.pattern, self.value, strict=False)
        alike = all(letter in ALPHABETS.get(place, place) for place, letter in pairs)
        places = sum(place in ALPHABETS for place in self.pattern)
        return alike and len(self.value) == len(self.pattern) and places >= MIN_PLACES


def draw_secret(secret_id: str, prompt: str, before: str, pattern: str) -> PlantedSecret:
    """A secret whose value is drawn from the operating system's randomness."""
    return PlantedSecret(secret_id, prompt, before, pattern, fill(pattern, secrets.SystemRandom()))


def fill(pattern: str, chance: Random) -> str:
    """A value of the pattern; all values are equally likely."""
    return "".join(chance.choice(ALPHABETS[place]) if place in ALPHABETS else place for place in pattern)


def write_secrets(planted: Iterable[PlantedSecret]) -> bytes:
    """JSON lines, one secret each."""
    return "".join(json.dumps(asdict(secret), ensure_ascii=False) + "\n" for secret in planted).encode()


def read_secrets(data: bytes) -> tuple[PlantedSecret, ...]:
    """Read JSON lines. Raises InvalidArgument (INVALID_PLANTED_SECRET) for anything else, or for over 1,000 secrets."""
    try:
        planted = tuple(PlantedSecret(**json.loads(line)) for line in data.decode().splitlines() if line.strip())
    except (ValueError, TypeError):
        raise _invalid(
            "A file of planted secrets has one JSON object per line, with secret_id, prompt, before, pattern and value."
        ) from None
    if len(planted) > MAX_SECRETS:
        raise _invalid(f"A file may have at most {MAX_SECRETS} planted secrets.")
    return planted


def _invalid(message: str) -> InvalidArgument:
    return InvalidArgument(Reason.INVALID_PLANTED_SECRET, message)
