"""Texts with the place of every personal value: the sample's sources and hand-written snippets."""

import re
from pathlib import Path

from bench.generated import Gold

SAMPLE = Path(__file__).parents[1] / "deploy" / "sample"
DATA = Path(__file__).with_name("data")
MARK = re.compile(r"\{\{([A-Z_]+)\|([^{}]*)\}\}")
GERMAN = ("de-", "german")


def unmark(name: str, language: str, marked: str) -> Gold:
    """The text without its marks `{{TYPE|value}}`, and their places."""
    text, spans, place = "", [], 0
    for mark in MARK.finditer(marked):
        text += marked[place : mark.start()]
        spans.append((len(text), len(text) + len(mark[2]), mark[1]))
        text += mark[2]
        place = mark.end()
    return Gold(name, language, text + marked[place:], tuple(spans))


def read_sample() -> list[Gold]:
    """The sources of the sample's documents."""
    return [
        unmark(path.stem, "en", path.read_text(encoding="utf-8").split("---\n", 2)[2])
        for path in sorted(SAMPLE.glob("source/*/*.md"))
    ]


def read_snippets(name: str) -> list[Gold]:
    """Hand-written snippets: `tuned`, which the recognisers were developed on, or `unseen`."""
    parts = re.split(r"(?m)^%%% ", (DATA / f"{name}.txt").read_text(encoding="utf-8"))[1:]
    named = (part.split("\n", 1) for part in parts)
    return [unmark(title, "de" if title.startswith(GERMAN) else "en", body) for title, body in named]
