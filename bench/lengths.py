"""Whether the barrier's cost grows in proportion to the text: CPU seconds of texts of 0.1, 1 and 10 MB. `python -m bench.lengths`.

One kind of text is the sample's documents, again and again. The other is a single paragraph, which cost more than in proportion before the
barrier had a limit for a paragraph.
"""

import time
from collections.abc import Callable, Iterator
from itertools import count

from bench.checks_work import read_anonymizer
from bench.gold import read_sample
from bench.report import keep
from services.anonymization.anonymizer import TextAnonymizer

NAME = "lengths"
SIZES = (100_000, 1_000_000, 10_000_000)
SAMPLE = "\n\n".join(gold.text for gold in read_sample())
KINDS: dict[str, Callable[[int], str]] = {
    "the sample's documents": lambda number: SAMPLE,
    "`Aa Aa Aa`, and so on": lambda number: "Aa ",
}


def main() -> None:
    """Measure each kind at each size, and keep the figures."""
    anonymizer = read_anonymizer()
    figures = {kind: [measure(anonymizer, part, size) for size in SIZES] for kind, part in KINDS.items()}
    lines = list(to_lines(figures))
    keep(NAME, {"sizes": SIZES, "cpu_seconds": figures}, "\n".join(lines))
    print("\n".join(lines))


def measure(anonymizer: TextAnonymizer, part: Callable[[int], str], size: int) -> float:
    """The CPU seconds of a text of `size` characters, all threads together."""
    text = make_text(part, size)
    started = time.process_time()
    anonymizer.anonymize((text,))
    return round(time.process_time() - started, 2)


def make_text(part: Callable[[int], str], size: int) -> str:
    """Parts one after the other, up to `size` characters."""
    parts, length = [], 0
    for number in count():
        if length >= size:
            break
        parts.append(part(number))
        length += len(parts[-1])
    return "".join(parts)[:size]


def to_lines(figures: dict[str, list[float]]) -> Iterator[str]:
    """The table of the page."""
    yield "| text | 0.1 MB | 1 MB | 10 MB | 10 MB over 0.1 MB |"
    yield "|---|---:|---:|---:|---:|"
    for kind, seconds in figures.items():
        cells = " | ".join(f"{value:,.1f} s" for value in seconds)
        yield f"| {kind} | {cells} | {seconds[-1] / seconds[0]:.0f} times |"


if __name__ == "__main__":
    main()
