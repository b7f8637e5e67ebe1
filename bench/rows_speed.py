"""CPU time for the rows of a document of two pages, without counting tokens: `python -m bench.rows_speed [FILE]`."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from services.ingestion.spans import find_sections
from services.synthetic.domain import Document, Kind, Specialist, Text
from services.synthetic.ports import TokenCounter
from services.synthetic.rows.document_rows import make_rows
from tailor.storage.ref import Ref
from tailor.values import Labels

CHARACTERS, ROUNDS = 6_000, 50
SECTION = (
    "## Part {0}\n\nThe audit of branch {0} began on {0} March 2025 and ended after nine days. Anna Meyer and the branch manager agreed that "
    "{0}7 of the 4{0} counted keys were missing, which the house had not noticed before. A new register costs €{0},400 a year, and it pays for "
    "itself within two years. Nobody objected to the proposal at the meeting, and the committee asked for a second count in the autumn.\n\n"
)


class NoCounter(TokenCounter):
    """A token for every four characters, so that counting takes no time."""

    digest = "none"
    context_tokens = 8192

    def template_tokens(self, contents: Sequence[str], *, has_system: bool) -> int:
        return 5 * (len(contents) + has_system)

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(text) // 4 + 1 for text in texts]

    def can_encode(self, messages: Sequence[tuple[str, str]]) -> bool:
        return True


def main() -> None:
    """Print the least CPU time of many rounds, scaled to 6,000 characters."""
    text = Path(sys.argv[1]).read_text(encoding="utf-8") if len(sys.argv) > 1 else "# Report on keys\n\n"
    if len(sys.argv) < 2:
        text = (text + "".join(SECTION.format(number) for number in range(1, 20)))[:CHARACTERS]
    ref = Ref("s3://corpus/x", "0" * 64, 1)
    spans = tuple(find_sections(text))
    document = Document("doc_1", 1, "d", Kind.DOCUMENT, Labels(), ref, language="en", spans=spans)
    seconds = []
    for _ in range(ROUNDS):
        start = time.process_time()
        rows = make_rows(document, Text(None, text), Specialist("reports", 1, "base", "lora"), NoCounter())
        seconds.append(time.process_time() - start)
    milliseconds = min(seconds) * 1000 * CHARACTERS / len(text)
    print(f"{len(rows.rows)} rows of {len(text)} characters; {milliseconds:.2f} ms of CPU per {CHARACTERS} characters")


if __name__ == "__main__":
    main()
