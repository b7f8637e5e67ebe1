"""Which of a dataset's train rows are kept: each answer once, and the limits on tokens and on the share of one source."""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy
from numpy.typing import NDArray

from services.synthetic.building.segments import MadeRows
from services.synthetic.filters import share_limit, source_limit

Mask = NDArray[numpy.bool_]
Keys = NDArray[numpy.uint64]

MAX_PERCENT = 100
BUDGET, SOURCE_SHARE, DOCUMENT_SHARE = "max_train_tokens", "max_source_percent", "max_document_percent"


class SeenAnswers:
    """The answers of all earlier segments, as sorted arrays that double in size: 8 bytes per answer."""

    def __init__(self) -> None:
        self._runs: list[Keys] = []

    def add(self, answers: Keys) -> Mask:
        """True for each answer that is the first of its kind; 0 always is."""
        first, new = self.find(answers)
        self.keep(new)
        return first

    def find(self, answers: Keys) -> tuple[Mask, Keys]:
        """What `add` would return, and the answers that were not seen yet, sorted."""
        # Sorted, because looking up neighbours one after another is several times as fast.
        keys, places = numpy.unique(answers, return_index=True)
        is_new = keys != 0
        for run in self._runs:
            is_new &= ~_contains(run, keys)
        first = numpy.asarray(answers == 0)
        first[places[is_new]] = True
        return first, keys[is_new]

    def keep(self, run: Keys) -> None:
        """Remember answers that `find` did not know."""
        while self._runs and len(self._runs[-1]) <= 2 * len(run):
            run = numpy.sort(numpy.concatenate([self._runs.pop(), run]))
        self._runs.append(run)


def _contains(run: Keys, keys: Keys) -> Mask:
    if not len(run):
        return numpy.zeros(len(keys), numpy.bool_)
    places = numpy.minimum(numpy.searchsorted(run, keys), len(run) - 1)
    return numpy.asarray(run[places] == keys)


def limit_sources(segments: Sequence[MadeRows], kept: list[Mask], source: Callable[[str], str], percent: int) -> None:
    """Remove rows, so that no source has more than its share of them. Examples of the limit are chosen by the rows' draws."""
    if not percent:
        return
    names = [numpy.array([source(key) for key in segment.ids], object) for segment in segments]
    owners = [name[segment.index["document"]] for name, segment in zip(names, segments, strict=True)]
    counts = Counter(str(owner) for owner, mask in zip(owners, kept, strict=True) for owner in owner[mask])
    limit = source_limit(counts, percent)
    taken: Counter[str] = Counter()
    for number, row in _by_draw(segments, kept):
        owner = str(owners[number][row])
        taken[owner] += 1
        kept[number][row] = limit is None or taken[owner] <= limit


def limit_documents(segments: Sequence[MadeRows], kept: list[Mask], percent: int) -> None:
    """Remove rows, so that no document has more than its share of the train tokens. Rows by people stay, others by their draws.

    Does nothing if the documents with rows are fewer than twice as many as such a share needs.
    """
    while sizes := _find_large(segments, kept, percent):
        for number, row in _by_draw(segments, kept):
            entry = segments[number].index[row]
            key = (number, int(entry["document"]))
            if key in sizes and not entry["is_human"]:
                tokens = int(entry["tokens"])
                kept[number][row] = tokens <= sizes[key]
                sizes[key] -= tokens if kept[number][row] else 0


def _find_large(segments: Sequence[MadeRows], kept: Sequence[Mask], percent: int) -> dict[tuple[int, int], int]:
    """The tokens that the rows of each document with too many may have, without those by people; by segment and number of the document."""
    totals, human = (_count_tokens(segments, masks) for masks in (kept, _and_human(segments, kept)))
    if len(totals) * percent < 2 * MAX_PERCENT:
        return {}
    limit = share_limit(totals.values(), percent)
    # What only people wrote cannot become less.
    large = {key: limit - human.get(key, 0) for key, tokens in totals.items() if tokens > limit}
    return {key: room for key, room in large.items() if totals[key] > human.get(key, 0)}


def _and_human(segments: Sequence[MadeRows], kept: Sequence[Mask]) -> list[Mask]:
    return [segment.index["is_human"] & mask for segment, mask in zip(segments, kept, strict=True)]


def _count_tokens(segments: Sequence[MadeRows], masks: Sequence[Mask]) -> dict[tuple[int, int], int]:
    """The tokens of each document's rows that are masked, without documents that have none."""
    counts: Counter[tuple[int, int]] = Counter()
    for number, (segment, mask) in enumerate(zip(segments, masks, strict=True)):
        for document, tokens in segment.index[mask][["document", "tokens"]].tolist():
            counts[number, document] += tokens
    return dict(counts)


def limit_tokens(segments: Sequence[MadeRows], kept: list[Mask], max_tokens: int) -> None:
    """Remove rows, so that the rest fits a budget: all rows by people stay, others are added in the order of their draws."""
    if not max_tokens:
        return
    human = _and_human(segments, kept)
    used = sum(int(segment.index["tokens"][mask].sum()) for segment, mask in zip(segments, human, strict=True))
    for number, row in _by_draw(segments, kept):
        entry = segments[number].index[row]
        if entry["is_human"]:
            continue
        tokens = int(entry["tokens"])
        kept[number][row] = used + tokens <= max_tokens
        used += tokens if kept[number][row] else 0


def _by_draw(segments: Sequence[MadeRows], kept: Sequence[Mask]) -> list[tuple[int, int]]:
    """(segment, row) of the kept rows in the order of their draws."""
    if not segments:
        return []
    numbers = numpy.concatenate([numpy.full(len(segment.index), number) for number, segment in enumerate(segments)])
    rows = numpy.concatenate([numpy.arange(len(segment.index)) for segment in segments])
    draws = numpy.concatenate([segment.index["draw"] for segment in segments])
    chosen = numpy.flatnonzero(numpy.concatenate(list(kept)))
    order = chosen[numpy.argsort(draws[chosen], kind="stable")]
    return list(zip(numbers[order].tolist(), rows[order].tolist(), strict=True))
