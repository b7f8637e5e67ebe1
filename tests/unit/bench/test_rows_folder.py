"""What the documents of a folder would teach."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from bench import rows_folder
from bench.rows_folder import FolderDocument, Outcome, RejectedFile
from services.synthetic.domain import SkippedText
from services.synthetic.ports import TokenCounter

pytestmark = pytest.mark.release

STORY = "The gates at Norbury open at six. Ann Field keeps the keys and pays 40 pounds for each one that is lost.\n"


class WordCounter(TokenCounter):
    """Counts words."""

    digest, context_tokens = "words", 1000

    def template_tokens(self, contents: Sequence[str], *, has_system: bool) -> int:
        return 2 * (len(contents) + has_system)

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def can_encode(self, messages: Sequence[tuple[str, str]]) -> bool:
        return True


def document(name: str, characters: int, untaught: int) -> FolderDocument:
    return FolderDocument(Path(name), "txt", 3, characters, (SkippedText("no_words", 1, untaught),), 1.0)


def test_every_file_becomes_a_document_or_a_rejection(tmp_path: Path) -> None:
    contents = {
        "gates.md": f"# Gates\n\n{STORY}".encode(),
        "copy.md": f"# Gates\n\n{STORY}".encode(),
        "digits.txt": b"1 2\n" * 20,
        "empty.txt": b"",
        "image.png": b"\x89PNG\r\n\x1a\n\0\0",
    }
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    outcomes = {item.path.name: item for item in rows_folder.read_folder([tmp_path], WordCounter())}
    reasons = {name: item.reason for name, item in outcomes.items() if isinstance(item, RejectedFile)}
    assert reasons == {"gates.md": "DUPLICATE", "empty.txt": "EMPTY", "image.png": "UNSUPPORTED_FORMAT"}
    gates, digits = outcomes["copy.md"], outcomes["digits.txt"]
    assert isinstance(gates, FolderDocument) and isinstance(digits, FolderDocument)
    assert gates.rows > 0 and rows_folder.coverage([gates]) == 1.0 and gates.word_coverage >= 0.98
    assert rows_folder.coverage([digits]) == 0.0 and [item.reason for item in digits.skipped] == ["no_words"]


def test_the_report_has_coverage_by_format_and_says_what_is_skipped_and_why() -> None:
    outcomes: list[Outcome] = [
        document("a.txt", 300, 0),
        document("b.txt", 100, 60),
        RejectedFile(Path("c.png"), "UNSUPPORTED_FORMAT"),
    ]
    report = rows_folder.render(outcomes)
    assert "| txt | 2 | 400 | 6 | 0.850 | 1.000 |" in report
    assert "- UNSUPPORTED_FORMAT (.png): 1" in report
    assert "- no_words: 60 characters, 2 rows" in report
    assert "1 documents under 0.90:\n\n- 0.400 b.txt (no_words 60)" in report


def test_a_folder_without_anything_skipped_has_no_lists() -> None:
    complete = FolderDocument(Path("a.txt"), "txt", 3, 300, (), 1.0)
    assert rows_folder.render([complete]).count("\n\n") == 0
