"""The lint of the prose."""

from pathlib import Path

import pytest

from deploy.english import check, main, tracked_files

ALLOW = "english: allow"


def phrases(name: str, text: str) -> list[tuple[int, str]]:
    return [(finding.line, finding.phrase) for finding in check(Path(name), text)]


@pytest.mark.parametrize(
    ("sentence", "phrase"),
    [
        ("It is for operators alone.", "alone"),  # english: allow alone
        ("The rows, or None where it failed.", "None where"),  # english: allow none where
        ("It ends where there is no broker.", "where there is no"),  # english: allow where there is no
        ("A file is no document.", "is no"),  # english: allow is no
        ("It has not 32 bytes.", "has not 32"),  # english: allow has not 32
        ("At most so many rows.", "so many"),  # english: allow so many
        ("The model trains anew.", "anew"),  # english: allow anew
        ("It takes 40 tokens a second.", "tokens a second"),  # english: allow tokens a second
        ("What a caller may see.", "What"),  # english: allow what
        ("It is measured beside the base.", "beside"),  # english: allow beside
        ("It goes on, whoever asks.", "whoever"),  # english: allow whoever
    ],
)
def test_finds_phrases(sentence: str, phrase: str) -> None:
    assert phrases("a.md", sentence) == [(1, phrase)]


@pytest.mark.parametrize(
    "sentence",
    [
        "Leave it alone.",
        "Training alone takes an hour.",
        "There is no broker.",
        "It is no longer there.",
        "What does it do? It trains.",
        "It runs until told to stop.",
        "Besides, it runs twice per day.",
        "The folder where models are kept.",
    ],
)
def test_lets_plain_sentences_pass(sentence: str) -> None:
    assert phrases("a.md", sentence) == []


def test_reads_docstrings_comments_and_literals_of_python() -> None:
    lines = [
        '"""A summary.',
        "    It trains",
        '    anew."""',  # english: allow anew
        "alone = told = 1  # counted over and",  # english: allow told
        "# over",
        'f"a rate of {anew} tokens a second" f"{told}"',  # english: allow anew, told, tokens a second
        '"alone"',
    ]
    found = phrases("a.py", "\n".join(lines))
    assert [line for line, _ in found] == [3, 4, 6]
    assert found[1] == (4, "over and over")  # english: allow over and over


def test_reads_only_comments_of_protos() -> None:
    text = "// Told once.\nstring told = 1; // anew\n"  # english: allow told, anew
    assert phrases("a.proto", text) == [(1, "Told"), (2, "anew")]


def test_skips_code_in_markdown() -> None:
    text = "Run `tailor told`.\n\n```\ntold alone.\n```\n\n- operators\n  alone.\n"  # english: allow alone
    assert phrases("a.md", text) == [(8, "alone")]


def test_skips_expressions_and_scripts_of_html() -> None:
    text = "<script>told</script>\n<p>{{ told }} {% if anew %}\nfor you alone.</p>"  # english: allow told, anew, alone
    assert phrases("a.html", text) == [(3, "alone")]


@pytest.mark.parametrize("name", ["a.toml", "a.yaml"])
def test_reads_values_and_comments_of_settings(name: str) -> None:
    text = "title = 'is none' # so\n# many\ntitle: is none"  # english: allow is none
    assert phrases(name, text) == [(1, "is none"), (1, "so many"), (3, "is none")]  # english: allow is none, so many


def test_keeps_allowed_phrases_on_the_line_and_below_it() -> None:
    assert phrases("a.py", f"x = 1  # trained anew  # {ALLOW} anew") == []  # english: allow anew
    assert phrases("a.md", f"<!-- {ALLOW} anew, told -->\nTold anew.") == []  # english: allow anew, told


def test_reports_allowances_that_allow_nothing() -> None:
    (finding,) = check(Path("a.py"), f"x = 1  # {ALLOW} anew")  # english: allow anew
    assert (finding.line, finding.phrase, finding.hint) == (1, "anew", "allowed here, but not found")


def test_checks_named_files_and_counts_per_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "page.md"
    path.write_text("Trained anew, and told.")  # english: allow anew, told
    assert main([str(path)]) == 1
    assert f"    2  {path}\n2 phrases in 1 of 1 files" in capsys.readouterr().out


def test_leaves_out_generated_files_and_records_unless_they_are_named() -> None:
    paths = {str(path) for path in tracked_files([])}
    assert "deploy/english.py" in paths
    assert not any(path.startswith(("tailor/api/", "docs/decisions/")) for path in paths)
    assert tracked_files(["docs/asyncapi.yaml"]) == [Path("docs/asyncapi.yaml")]
