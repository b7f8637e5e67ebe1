"""Wordings of prompts, by language, from the files in `templates/`."""

import hashlib
import itertools
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "templates"
_CHOICE = re.compile(r"\[([^\]]*)\]")


@dataclass(frozen=True)
class Templates:
    """The wordings of one language by task, and its labels."""

    wordings: Mapping[str, Sequence[str]]
    labels: Mapping[str, str]

    def draw(self, name: str, *key: object, **values: str) -> str:
        """The wording that a hash of the key chooses, filled in."""
        wordings = self.wordings[name]
        return fill(wordings[draw(len(wordings), name, *key)], **values)


def has_templates(language: str) -> bool:
    """True if prompts of this language have wordings. Other prompts use the document's own headings, without words of ours."""
    return base_language(language) in _languages()


@cache
def load_templates(language: str) -> Templates | None:
    """The templates of a language such as `de` or `de-AT`; None if there are none."""
    if not has_templates(language):
        return None
    content = tomllib.loads((FOLDER / f"{base_language(language)}.toml").read_text(encoding="utf-8"))
    wordings = {
        name: tuple(wording for line in lines for wording in expand(line))
        for name, lines in content["wordings"].items()
    }
    return Templates(wordings, content["labels"])


def expand(line: str) -> list[str]:
    """Every wording that a line with alternatives such as `[Write|Draft]` stands for."""
    parts = _CHOICE.split(line)
    choices = [part.split("|") if number % 2 else [part] for number, part in enumerate(parts)]
    return ["".join(chosen) for chosen in itertools.product(*choices)]


def fill(wording: str, **values: str) -> str:
    """The wording with its fields filled in. Braces in values stay as they are."""
    return re.sub(r"\{(\w+)\}", lambda match: values[match[1]], wording)


def draw(count: int, *key: object) -> int:
    """A number below `count` by a hash of the key: equal keys give equal numbers."""
    digest = hashlib.blake2b("\0".join(map(str, key)).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % count


@cache
def _languages() -> frozenset[str]:
    return frozenset(path.stem for path in FOLDER.glob("*.toml"))


def base_language(language: str) -> str:
    """The first part of a language's tag: `de` of `de-AT`."""
    return language.partition("-")[0].lower()
