"""Chooses house examples for a prompt: the train rows of the same task whose prompts are most similar."""

from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.evaluation.domain import HeldOutRow
from services.evaluation.ports import Batches

# Changes when the choice does, so that stored results are not mistaken for those of another method.
METHOD = "tfidf-1"
FEATURES = 2**20
# Batch size: held-out rows per product with the matrix of all train rows.
BATCH = 32

Examples = Mapping[str, tuple[HeldOutRow, ...]]


@dataclass
class _Corpus:
    """Train rows: their ids, and the counts of their words, batch by batch."""

    row_ids: list[str] = field(default_factory=list)
    counts: list[Any] = field(default_factory=list)

    def add(self, rows: Sequence[HeldOutRow]) -> None:
        self.row_ids += [row.row_id for row in rows]
        self.counts.append(_count_words(rows))


def choose_examples(
    batches: Batches, rows: Sequence[HeldOutRow], count: int, erased: Container[str] = frozenset()
) -> Examples:
    """For each row, by its id, at most `count` train rows of its task, the most similar first. Blocks; reads them twice.

    A task without train rows, such as that of golden documents, gets rows of any task. Similarity is the cosine of TF-IDF vectors of words
    (Salton and Buckley 1988; scikit-learn, hashed, sublinear term frequency) over the prompts without their system messages. Equal
    similarities are ordered by row id, so the same rows give the same choice. Rows of erased documents are left out.
    """
    if not count:
        return {row.row_id: () for row in rows}
    tasks = _read_tasks(batches, erased)
    chosen: dict[str, list[str]] = {}
    for name in sorted({row.task for row in rows}):
        corpus = tasks.get(name) or _join(tasks)
        chosen |= _nearest(corpus, [row for row in rows if row.task == name], count)
    by_id = _read(batches, {row_id for ids in chosen.values() for row_id in ids})
    return {row.row_id: tuple(by_id[row_id] for row_id in chosen.get(row.row_id, ())) for row in rows}


def prompt_text(row: HeldOutRow) -> str:
    """The chat before the answer, without system messages, which all rows of a specialist share."""
    return "\n".join(content for role, content in row.messages if role != "system")


def is_erased(row: HeldOutRow, erased: Container[str]) -> bool:
    """True if a document behind the row was erased."""
    return any(document_id in erased for document_id in row.document_ids)


def _read_tasks(batches: Batches, erased: Container[str]) -> dict[str, _Corpus]:
    tasks: dict[str, _Corpus] = {}
    for batch in batches():
        kept = [row for row in batch if not is_erased(row, erased)]
        for name in {row.task for row in kept}:
            tasks.setdefault(name, _Corpus()).add([row for row in kept if row.task == name])
    return tasks


def _join(tasks: Mapping[str, _Corpus]) -> _Corpus:
    joined = _Corpus()
    for task in tasks.values():
        joined.row_ids += task.row_ids
        joined.counts += task.counts
    return joined


def _nearest(corpus: _Corpus, rows: Sequence[HeldOutRow], count: int) -> dict[str, list[str]]:
    import numpy
    from scipy import sparse
    from sklearn.feature_extraction.text import TfidfTransformer

    if not corpus.row_ids:
        return {}
    # Ordered by row id, so that a stable sort by similarity leaves equal ones in that order.
    order = numpy.argsort(numpy.array(corpus.row_ids), kind="stable")
    counts = sparse.vstack(corpus.counts).tocsr()[order]
    weights = TfidfTransformer(sublinear_tf=True).fit(counts)
    train = weights.transform(counts)
    nearest: dict[str, list[str]] = {}
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        # (rows of the part, train rows)
        similarity = (weights.transform(_count_words(part)) @ train.T).toarray()
        for row, values in zip(part, similarity, strict=True):
            best = numpy.argsort(-values, kind="stable")[:count]
            nearest[row.row_id] = [corpus.row_ids[order[place]] for place in best]
    return nearest


def _count_words(rows: Sequence[HeldOutRow]) -> Any:
    """A sparse matrix of word counts, (rows, FEATURES)."""
    from sklearn.feature_extraction.text import HashingVectorizer

    vectorizer = HashingVectorizer(n_features=FEATURES, alternate_sign=False, norm=None)
    return vectorizer.transform([prompt_text(row) for row in rows])


def _read(batches: Batches, row_ids: Collection[str]) -> dict[str, HeldOutRow]:
    if not row_ids:
        return {}
    return {row.row_id: row for batch in batches() for row in batch if row.row_id in row_ids}
