"""Which files a repeated demo publishes."""

from dataclasses import replace
from pathlib import Path

from tailor.cli.published_files import PublishedFiles
from tailor.cli.submissions import Description, FileSubmission, collect


def make_files(folder: Path) -> list[FileSubmission]:
    for name in ("a.md", "b.md"):
        (folder / name).write_text(name)
    return collect([folder], Description(department="research"))


def test_chooses_files_that_are_new_changed_or_described_otherwise(tmp_path: Path) -> None:
    folder = tmp_path / "papers"
    folder.mkdir()
    known, files = PublishedFiles(tmp_path / "published.json"), make_files(folder)
    assert known.choose_new(files) == files

    known.add(files[:1])
    assert known.choose_new(files) == files[1:]
    known.add(files[1:])
    assert known.choose_new(files) == []

    (folder / "a.md").write_text("changed")
    assert known.choose_new(files) == files[:1]
    relabelled = replace(files[1], description=Description(department="board"))
    assert known.choose_new([relabelled]) == [relabelled]
    assert {path.name for path in tmp_path.iterdir()} == {"papers", "published.json"}
