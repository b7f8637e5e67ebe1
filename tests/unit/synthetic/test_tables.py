"""Tables of figures: what they teach, and that prompts say which figure belongs where."""

from services.ingestion.domain import File
from services.ingestion.formats.budget import Budget
from services.ingestion.formats.table import parse_csv
from services.synthetic.domain import DocumentRows
from services.synthetic.rows.document_rows import make_rows
from services.synthetic.rows.tables import read_cells
from tests.unit.synthetic.row_texts import FIGURES, WordCounter, make_document, plain, specialist
from tests.unit.synthetic.test_document_rows import covered

COUNTER = WordCounter()


def teach(text: str, tokens: int = 700) -> DocumentRows:
    return make_rows(make_document(text), plain(text), specialist(tokens), COUNTER)


def test_the_facts_of_a_part_of_a_table_have_the_figures_of_each_line_together() -> None:
    rows = [row for row in teach(FIGURES).rows if row.task == "report"]
    lines = [line for row in rows for line in row.completion.split("\n")]
    assert len(rows) > 3 and sorted(set(lines)) == sorted(FIGURES.split("\n"))
    for row in rows:
        facts = row.prompt.partition("Facts:\n")[2].split("\n")
        written = [read_cells(line) for line in row.completion.split("\n") if "---" not in line]
        assert facts == [f"- {'; '.join(cells)}" for cells in written]


def test_questions_are_about_a_line_and_a_column_and_show_the_header() -> None:
    rows = [row for row in teach(FIGURES).rows if row.task == "answer"]
    by_line = [row for row in rows if row.completion.startswith("- Opening: ")]
    by_column = [row for row in rows if row.completion.startswith("- 2025-")]
    assert len(by_line) == len(by_column) > 3 and len(rows) == 2 * len(by_line)
    table = {cells[0]: cells for cells in map(read_cells, FIGURES.split("\n"))}
    for row in by_line:
        date = next(key for key in table if f"“Date {key}”" in row.prompt)
        assert [line.split(": ")[1] for line in row.completion.split("\n")] == table[date][1:]
        assert "| Date | Opening | Closing | Volume | Id |" in row.prompt
    for row in by_column:
        name = next(name for name in table["Date"] if f"“{name}”" in row.prompt)
        cells = dict(line.removeprefix("- ").split(": ") for line in row.completion.split("\n"))
        assert cells == {key: table[key][table["Date"].index(name)] for key in cells} and len(cells) >= 3


def test_a_file_of_figures_is_taught_whole_and_named_by_its_header() -> None:
    data = "year;quarter;revenue;cost\n" + "".join(
        f"{2000 + n // 4};{n % 4 + 1};{n * 311};{n * 97}\n" for n in range(90)
    )
    text = parse_csv(File(data.encode(), "figures.csv"), Budget()).text
    result = teach(text)
    assert covered(text, result.rows) >= 0.98 and {entry.reason for entry in result.skipped} <= {"short_answer"}
    assert any("“year, quarter, revenue, cost …”" in row.prompt for row in result.rows)


def test_lines_that_begin_alike_are_not_asked_for_by_their_first_cell() -> None:
    text = "| Year | Sum |\n| --- | --- |\n" + "\n".join(f"| 2024 | {n * 17} |" for n in range(20))
    answers = [row.completion for row in teach(text).rows if row.task == "answer"]
    assert all(answer.startswith("- 2024: ") for answer in answers)


def test_a_table_without_a_header_or_cells_asks_nothing() -> None:
    figures = "\n".join(f"| {n} | {n * 7} | {n * 11} |" for n in range(30))
    assert "answer" not in {row.task for row in teach(figures).rows}
    headless = "\n".join(["| 3 | 5 | 8 |", "| --- | --- | --- |", figures])
    assert "answer" not in {row.task for row in teach(headless).rows}
    empty = "|  |  |\n| --- | --- |\n" + "|  |  |\n" * 20
    assert teach(empty).rows == () and {entry.reason for entry in teach(empty).skipped} == {"no_words"}
