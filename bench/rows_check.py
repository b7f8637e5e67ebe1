"""Coverage, grounded and overlap of a stored dataset, measured without any code of the builder: from its Parquet files and the documents.

- `coverage`: the share of the documents' characters, without blanks, in words that stand in a run of five words of some answer. Nearly equal
  documents count like others: the answers of one teach the words of the other. A heading that only prompts have is not taught.
- `places`: the share of the characters of documents with rows that the rows' `places` cover.
- `grounded`: the share of the answers whose numbers, and capitalised words inside a sentence (not in German), all stand in the prompt.
- `overlap`: the share of held-out answers with 13 neighbouring words, in lower case, that fewer than ten documents of train have.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import pyarrow.parquet

from bench.rows_texts import Paper

WORD = re.compile(r"\w+")
NUMBER = re.compile(r"\d+(?:[.,:/-]\d+)*")
SENTENCE = re.compile(r"(?<=[.!?:;])\s+|\n+|[|•]|(?:^|\s)[-*#>\d.)]+\s")
NAME = re.compile(r"[A-ZÀ-ÖØ-Þ][^\W\d_]{2,}")
RUN, GRAM = 5, 13
BOILERPLATE_DOCUMENTS = 10
GROUNDED_ROWS = 20_000
# Languages in which a capital letter inside a sentence shows no name.
CAPITAL_NOUNS = frozenset({"de"})

Rows = Iterable[Mapping[str, Any]]
Hashes = numpy.typing.NDArray[numpy.uint64]


@dataclass(frozen=True)
class StoredRows:
    """The rows of a dataset in a store of files, read a file at a time."""

    store: Path
    manifest: Mapping[str, Any]

    @classmethod
    def of(cls, store: Path, manifest: str) -> "StoredRows":
        """The rows of a manifest's key."""
        return cls(store, json.loads((store / "datasets" / manifest).read_text(encoding="utf-8")))

    def read(self, *splits: str) -> Iterator[dict[str, Any]]:
        """All rows of some splits."""
        for split in splits:
            for file in self.manifest["splits"][split]["files"]:
                with pyarrow.parquet.ParquetFile(self.store / "datasets" / file["key"]) as parquet:
                    for batch in parquet.iter_batches(batch_size=512, use_threads=False):
                        yield from batch.to_pylist()


def check(rows: StoredRows, papers: Sequence[Paper]) -> dict[str, Any]:
    """The recomputed figures. `papers` are all documents, or a sample of them; `grounded` is that of about GROUNDED_ROWS rows."""
    every = ("train", "held_out")
    step = max(1, sum(rows.manifest["splits"][name]["rows"] for name in every) // GROUNDED_ROWS)
    return {
        "coverage": round(word_coverage(papers, rows.read(*every)), 4),
        "places": round(place_coverage(papers, rows.read(*every)), 4),
        "grounded": round(grounded_share(rows.read(*every), step), 4),
        "overlap": round(overlap(list(rows.read("held_out")), rows.read("train")), 4),
        "checked_documents": len(papers),
    }


def answers(row: Mapping[str, Any]) -> str:
    """Everything that the assistant says in a row."""
    return "\n".join(part["content"] for part in row["messages"] if part["role"] == "assistant")


def word_coverage(papers: Sequence[Paper], rows: Rows) -> float:
    """The share of the papers' characters that stand in runs of words of answers."""
    hashed = [(paper, *_runs(paper.text)) for paper in papers]
    wanted = numpy.unique(numpy.concatenate([runs for _, _, runs in hashed]))
    taught = numpy.zeros(len(wanted), numpy.bool_)
    for row in rows:
        hashes = _runs(answers(row))[1]
        places = numpy.minimum(numpy.searchsorted(wanted, hashes), len(wanted) - 1)
        taught[places[wanted[places] == hashes]] = True
    counts = [
        _taught_characters(paper.text, words, taught[numpy.searchsorted(wanted, runs)]) for paper, words, runs in hashed
    ]
    return sum(part for part, _ in counts) / max(1, sum(whole for _, whole in counts))


def _taught_characters(text: str, words: Sequence[tuple[int, int]], runs: Any) -> tuple[int, int]:
    """The characters of words in taught runs, with the signs after them, and all characters; both without blanks."""
    solid = numpy.concatenate(([0], numpy.cumsum([not sign.isspace() for sign in text])))
    ends = [*(start for start, _ in words[1:]), len(text)]
    known = numpy.zeros(len(words), numpy.bool_)
    for offset in range(RUN):
        known[offset : offset + len(runs)] |= runs[: len(known) - offset]
    taught = sum(
        int(solid[end] - solid[start]) for (start, _), end, is_known in zip(words, ends, known, strict=True) if is_known
    )
    return taught, int(solid[-1])


def _runs(text: str) -> tuple[list[tuple[int, int]], Hashes]:
    """The places of the words of a text, and a hash for every run of five; a shorter text has one run."""
    matches = list(WORD.finditer(text))
    values = numpy.array([hash(match[0].lower()) & (2**64 - 1) for match in matches], numpy.uint64)
    count = max(len(values) - RUN + 1, min(len(values), 1))
    result = numpy.zeros(count, numpy.uint64)
    for offset in range(min(RUN, len(values))):
        result = result * numpy.uint64(0x9E3779B97F4A7C15) + values[offset : offset + count]
    return [match.span() for match in matches], result


def place_coverage(papers: Sequence[Paper], rows: Rows) -> float:
    """The share of the characters of papers with rows that the rows' places cover."""
    covered: dict[str, Any] = {}
    texts = {paper.document_id: paper.text for paper in papers}
    for row in rows:
        document = row["document_ids"][0]
        if document in texts:
            mask = covered.setdefault(document, numpy.zeros(len(texts[document]), numpy.bool_))
            for place in row["places"]:
                mask[place["start"] : place["end"]] = True
    taught = whole = 0
    for document, mask in covered.items():
        solid = numpy.array([not sign.isspace() for sign in texts[document]])
        taught, whole = taught + int((mask & solid).sum()), whole + int(solid.sum())
    return taught / max(1, whole)


def grounded_share(rows: Rows, every: int = 1) -> float:
    """The share of the rows held to their prompt whose answers it supports."""
    counts: Counter[bool] = Counter()
    for row in rows:
        if row["grounding"] in ("yes", "no") and _draw(row["row_id"], every):
            prompt = "\n".join(part["content"] for part in row["messages"][:-1])
            counts[not unsupported(row["messages"][-1]["content"], prompt, row["language"])] += 1
    return counts[True] / max(1, counts.total())


def _draw(name: str, every: int) -> bool:
    return every <= 1 or int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) % every == 0


def values(text: str, language: str = "") -> list[str]:
    """The numbers of a text, and the capitalised words that do not begin a sentence, a line or a cell."""
    result: list[str] = []
    for sentence in SENTENCE.split(text):
        words = NUMBER.findall(sentence)
        if language[:2] not in CAPITAL_NOUNS:
            first = WORD.search(sentence)
            words += [match[0] for match in NAME.finditer(sentence) if first is None or match.start() > first.end()]
        result += words
    return result


def unsupported(answer: str, prompt: str, language: str = "") -> list[str]:
    """The values of an answer that its prompt does not have."""
    numbers, words = set(NUMBER.findall(prompt)), set(map(str.lower, WORD.findall(prompt)))
    return [value for value in values(answer, language) if value not in numbers and value.lower() not in words]


def overlap(held_out: Sequence[Mapping[str, Any]], train: Rows) -> float:
    """The share of held-out answers with a run of 13 words that some, but fewer than ten, documents of train have."""
    grams = [set(_grams(answers(row))) for row in held_out]
    wanted = {gram: set[str]() for gram in set().union(*grams)}
    for row in train:
        for gram in _grams(answers(row)):
            documents = wanted.get(gram)
            if documents is not None and len(documents) < BOILERPLATE_DOCUMENTS:
                documents.add(row["document_ids"][0])
    shared = {gram for gram, documents in wanted.items() if 0 < len(documents) < BOILERPLATE_DOCUMENTS}
    return sum(not shared.isdisjoint(part) for part in grams) / max(1, len(grams))


def _grams(text: str) -> Iterator[str]:
    words = WORD.findall(text.lower())
    return (" ".join(words[start : start + GRAM]) for start in range(len(words) - GRAM + 1))
