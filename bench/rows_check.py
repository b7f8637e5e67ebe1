"""Coverage, grounded and overlap of a stored dataset, measured without any code of the builder: from its Parquet files and the documents.

- `coverage`: the share of the documents' characters, without blanks, in words that occur in a run of five words of some answer. Nearly equal
  documents count like others: the answers of one teach the words of the other. A heading that only prompts have is not taught.
- `places`: the share of the characters of documents with rows that the rows' `places` cover.
- `grounded`: the share of the answers whose numbers, and capitalised words inside a sentence (not in German), all occur in the prompt.
- `overlap`: the share of held-out rows whose answers have 13 neighbouring words, in lower case, that fewer than ten documents of train have.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import pyarrow
import pyarrow.compute
import pyarrow.parquet
from numpy.typing import NDArray

from bench.rows_texts import Paper

WORD = re.compile(r"\w+")
NUMBER = re.compile(r"\d+(?:[.,:/-]\d+)*")
SENTENCE = re.compile(r"(?<=[.!?:;])\s+|\n+|[|•]")
# Marks at the start of a list item, heading or quotation; their numbers are not part of the text.
MARK = re.compile(r"(?m)^[ \t]*(?:[-*+>]|#+|\d{1,3}[.)])[ \t]+")
RUN, GRAM = 5, 13
BOILERPLATE_DOCUMENTS = 10
GROUNDED_ROWS = 20_000
# Languages in which a capital letter inside a sentence shows no name.
CAPITAL_NOUNS = frozenset({"de"})

Rows = Iterable[Mapping[str, Any]]
Hashes = NDArray[numpy.uint64]


@dataclass(frozen=True)
class Answers:
    """What the assistant says in some rows: an answer per message, with the first document of its row, and the row's number."""

    texts: Sequence[str]
    documents: Sequence[str]
    rows: Sequence[int]


@dataclass(frozen=True)
class StoredRows:
    """The rows of a dataset in a store of files, read a part of a file at a time."""

    store: Path
    manifest: Mapping[str, Any]

    @classmethod
    def of(cls, store: Path, manifest: str) -> "StoredRows":
        """The rows of a manifest's key."""
        return cls(store, json.loads((store / "datasets" / manifest).read_text(encoding="utf-8")))

    def batches(self, *splits: str) -> Iterator[Any]:
        """All rows of some splits, as record batches."""
        for split in splits:
            for file in self.manifest["splits"][split]["files"]:
                with pyarrow.parquet.ParquetFile(self.store / "datasets" / file["key"]) as parquet:
                    yield from parquet.iter_batches(batch_size=2048, use_threads=False)

    def of_documents(self, documents: Iterable[str]) -> Iterator[dict[str, Any]]:
        """The rows of both splits whose first document is one of these."""
        wanted = pyarrow.array(sorted(documents))
        for batch in self.batches("train", "held_out"):
            firsts = pyarrow.compute.list_element(batch.column("document_ids"), 0)
            yield from batch.filter(pyarrow.compute.is_in(firsts, wanted)).to_pylist()

    def sample(self, every: int) -> Iterator[dict[str, Any]]:
        """Every n-th row of both splits."""
        start = 0
        for batch in self.batches("train", "held_out"):
            yield from batch.take(list(range(start, batch.num_rows, every))).to_pylist()
            start = (start - batch.num_rows) % every

    def answers(self, split: str) -> Iterator[Answers]:
        """The answers of a split."""
        for batch in self.batches(split):
            messages = batch.column("messages")
            parts, rows = messages.flatten(), pyarrow.compute.list_parent_indices(messages)
            chosen = pyarrow.compute.equal(parts.field("role"), "assistant")
            rows = rows.filter(chosen)
            firsts = pyarrow.compute.list_element(batch.column("document_ids"), 0).take(rows)
            yield Answers(parts.field("content").filter(chosen).to_pylist(), firsts.to_pylist(), rows.to_pylist())


def check(rows: StoredRows, papers: Sequence[Paper]) -> dict[str, Any]:
    """The recomputed figures. `papers` are all documents, or a sample of them; `grounded` is that of about GROUNDED_ROWS rows."""
    count = sum(rows.manifest["splits"][name]["rows"] for name in ("train", "held_out"))
    ids = [paper.document_id for paper in papers]
    return {
        "coverage": round(word_coverage(papers, map(answer_text, rows.of_documents(ids))), 4),
        "places": round(place_coverage(papers, rows.of_documents(ids)), 4),
        "grounded": round(grounded_share(rows.sample(max(1, count // GROUNDED_ROWS))), 4),
        "overlap": round(measure_overlap(list(rows.answers("held_out")), rows.answers("train")), 4),
        "checked_documents": len(papers),
    }


def answer_text(row: Mapping[str, Any]) -> str:
    """Everything that the assistant says in a row."""
    return "\n".join(part["content"] for part in row["messages"] if part["role"] == "assistant")


def word_coverage(papers: Sequence[Paper], answers: Iterable[str]) -> float:
    """The share of the papers' characters that occur in runs of words of answers."""
    hashed = [(paper, *_runs(paper.text)) for paper in papers]
    wanted = numpy.unique(numpy.concatenate([runs for _, _, runs in hashed]))
    taught = numpy.zeros(len(wanted), numpy.bool_)
    for answer in answers:
        hashes = _runs(answer)[1]
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
    words = [match[0].lower() for match in matches]
    return [match.span() for match in matches], hash_runs(words, max(1, min(RUN, len(words))))


def hash_runs(words: Sequence[str], size: int) -> Hashes:
    """A hash of 64 bits for every run of this number of words."""
    values = numpy.array([hash(word) & (2**64 - 1) for word in words], numpy.uint64)
    count = max(0, len(values) - size + 1)
    result = numpy.zeros(count, numpy.uint64)
    for offset in range(size):
        result = result * numpy.uint64(0x9E3779B97F4A7C15) + values[offset : offset + count]
    return result


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


def grounded_share(rows: Rows) -> float:
    """The share of the rows held to their prompt whose answers it supports."""
    counts: Counter[bool] = Counter()
    for row in rows:
        if row["grounding"] in ("yes", "no"):
            prompt = "\n".join(part["content"] for part in row["messages"][:-1])
            counts[not unsupported(row["messages"][-1]["content"], prompt, row["language"])] += 1
    return counts[True] / max(1, counts.total())


def values(text: str, language: str = "") -> list[str]:
    """The numbers of a text, and the capitalised words of three letters or more that do not begin a sentence, a line or a cell."""
    result: list[str] = []
    for sentence in SENTENCE.split(MARK.sub("", text)):
        result += NUMBER.findall(sentence)
        if language[:2] not in CAPITAL_NOUNS:
            result += [
                word for word in WORD.findall(sentence)[1:] if word[0].isupper() and word.isalpha() and len(word) > 2
            ]
    return result


def unsupported(answer: str, prompt: str, language: str = "") -> list[str]:
    """The values of an answer that its prompt does not have."""
    numbers, words = set(NUMBER.findall(prompt)), set(map(str.lower, WORD.findall(prompt)))
    return [value for value in values(answer, language) if value not in numbers and value.lower() not in words]


def measure_overlap(held_out: Sequence[Answers], train: Iterable[Answers]) -> float:
    """The share of held-out rows with a run of 13 words in an answer that some, but fewer than ten, documents of train have."""
    grams = [_grams_by_row(answers) for answers in held_out]
    parts = [hashes for by_row in grams for hashes in by_row.values()]
    wanted = numpy.unique(numpy.concatenate(parts)) if parts else numpy.zeros(0, numpy.uint64)
    documents: dict[int, set[str]] = {}
    for answers in train:
        for text, document in zip(answers.texts, answers.documents, strict=True):
            for gram in _known(hash_runs(WORD.findall(text.lower()), GRAM), wanted):
                names = documents.setdefault(gram, set())
                # More names would change nothing, and boilerplate has very many.
                if len(names) < BOILERPLATE_DOCUMENTS:
                    names.add(document)
    shared = {gram for gram, names in documents.items() if len(names) < BOILERPLATE_DOCUMENTS}
    return sum(not shared.isdisjoint(part.tolist()) for part in parts) / max(1, len(parts))


def _grams_by_row(answers: Answers) -> dict[int, Hashes]:
    """The 13-grams of each row's answers."""
    grams: dict[int, Hashes] = {}
    for text, row in zip(answers.texts, answers.rows, strict=True):
        hashes = hash_runs(WORD.findall(text.lower()), GRAM)
        grams[row] = numpy.concatenate([grams[row], hashes]) if row in grams else hashes
    return grams


def _known(hashes: Hashes, wanted: Hashes) -> list[int]:
    """Those of the hashes that are wanted (sorted)."""
    if not len(wanted):
        return []
    places = numpy.minimum(numpy.searchsorted(wanted, hashes), len(wanted) - 1)
    return list(hashes[wanted[places] == hashes].tolist())
