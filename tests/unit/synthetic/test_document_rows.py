"""Rows from a document's own structure."""

from services.synthetic.domain import Document, Kind, RowLimits, Text
from services.synthetic.rows.document_rows import make_rows, passages
from tailor.storage.ref import Ref
from tailor.words import Labels
from tests.unit.synthetic.fakes import SPECIALIST, report

ALL = RowLimits(rows_per_document=99, min_answer_tokens=10)
MAIL = (
    "From: Ann Lee <ann@a.example>\nTo: Bo Ray <bo@b.example>\nDate: Fri, 14 Nov 2025 09:08:00 +0100\nSubject: Plot maps\n\n"
    "Please ask the cooperative for fresh maps of 38 farm plots, since 31 of them lie in the sea.\n\nAnn Lee"
)
SUMMARY = (
    "# Board summary: keys\n\nWe ask the board to retire 1,140 mechanical keys across 63 substations. Nobody can say today "
    "where 212 of those keys are, and nine sites feed hospitals. The remaining exposure is small, and we think it worth taking now."
)
MEMO = (
    "To: Ann Lee\nFrom: Bo Ray\nDate: 4 May 2026\nSubject: Gates\n\n"
    "## Purpose\n\nThe gates were found open on 9 nights of May.\n\n## Ask\n\nClose them, please, every night at ten."
)


def document(kind: Kind = Kind.DOCUMENT) -> Document:
    return Document("doc_1", 1, "d", kind, Labels(), Ref("s3://corpus/x", "0" * 64, 1))


def rows_of(text: str, limits: RowLimits = ALL) -> dict[str, tuple[str, str]]:
    rows = make_rows(document(), Text(None, text), SPECIALIST, limits)
    return {f"{row.origin}{number}": (row.prompt, row.completion) for number, row in enumerate(rows)}


def test_a_section_row_asks_for_the_section_and_has_its_text() -> None:
    rows = [row for name, row in rows_of(report("ladders")).items() if name.startswith("section")]
    assert len(rows) == 2
    for prompt, completion in rows:
        assert "ladders handling" in prompt and "report" in prompt
        assert not completion.startswith("#")
        assert ("Position" in prompt) == ("First." in completion)


def test_a_summary_row_asks_for_the_whole_with_facts() -> None:
    ((prompt, completion),) = [row for name, row in rows_of(SUMMARY).items() if name.startswith("board_summary")]
    assert "board summary" in prompt.lower() and "keys" in prompt
    assert completion == SUMMARY


def test_a_memo_gives_a_row_of_the_whole_and_one_of_its_opening() -> None:
    rows = rows_of(MEMO, RowLimits(rows_per_document=99, min_answer_tokens=5))
    whole = [completion for name, (_, completion) in rows.items() if name.startswith("document")]
    openings = [row for row in rows.values() if row[0].startswith("Write the opening of a memo")]
    assert whole == [MEMO]
    assert openings[0][0] == (
        "Write the opening of a memo (header lines and the Purpose section) from Bo Ray to Ann Lee, dated 4 May 2026, on gates."
    )
    assert openings[0][1].endswith("## Purpose\n\nThe gates were found open on 9 nights of May.")


def test_a_mail_row_has_no_header_lines_and_no_addresses() -> None:
    (prompt, completion), *_ = rows_of(MAIL).values()
    assert prompt.startswith("Write a mail from Ann Lee to Bo Ray, dated 14 Nov 2025, on ") and "@" not in prompt
    assert completion.startswith("Please ask")


def test_a_question_is_answered_with_sentences_of_its_passage() -> None:
    text = (
        report("ladders")
        + "\n\n## Rule\n\nThe yellow ladder is checked by the foreman every single Monday. He signs for it. He does."
    )
    questions = [row for name, row in rows_of(text).items() if name.startswith("question")]
    assert questions
    for prompt, completion in questions:
        assert prompt.startswith("What does the passage say about ")
        assert all(sentence in prompt for sentence in completion.split(". ")[:1])


def test_prompts_with_facts_are_at_most_half_as_long_as_answers() -> None:
    for text in (MAIL, SUMMARY, report("ladders")):
        for name, (prompt, completion) in rows_of(text).items():
            if not name.startswith("question") and "Facts:" in prompt:
                assert len(prompt) <= len(completion) / 2


def test_an_example_is_used_verbatim() -> None:
    (row,) = make_rows(document(Kind.EXAMPLE), Text("Write it.", "As agreed."), SPECIALIST, RowLimits())
    assert (row.origin, row.made_by, row.prompt, row.completion) == ("example", "human", "Write it.", "As agreed.")


def test_rows_are_limited_by_document_and_length_and_repeatable() -> None:
    limits = RowLimits(rows_per_document=1)
    assert rows_of(report("ladders"), limits) == rows_of(report("ladders"), limits)
    assert len(rows_of(report("ladders"), limits)) == 1
    assert rows_of(report("ladders"), RowLimits(max_row_tokens=20)) == {}
    assert rows_of("# Title\n\n## Part\n\nToo short.") == {}


def test_passages_have_title_and_heading() -> None:
    assert passages(Text(None, report("ladders")), ALL)[0].whole.startswith("Report: ladders handling\n\nPosition\n\n")
