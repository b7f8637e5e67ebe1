"""The rows of one document: tasks, budgets, grounding, coverage and languages."""

import random
import re
from collections.abc import Sequence
from dataclasses import replace

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from services.synthetic.domain import Conversation, DocumentRows, Grounding, Kind, Row, Specialist, Text
from services.synthetic.rows.answer_rows import Chunk
from services.synthetic.rows.document_rows import make_deliverable_rows, make_rows
from services.synthetic.rows.grounding import unsupported
from services.synthetic.rows.ranges import count_characters
from services.synthetic.rows.sections import read_source
from tailor.values import OwnTask
from tests.unit.synthetic import row_texts
from tests.unit.synthetic.row_texts import WordCounter, make_document, plain, specialist

COUNTER = WordCounter()
# Written without the code under test: numbers, amounts, dates and names of several capitalised words.
VALUES = (
    re.compile(r"\d[\d.,:/-]*\d|\d"),
    re.compile(r"(?:[€$£]|EUR|USD|GBP|CHF)\s?\d[\d.,]*(?:\s(?:million|billion|Mio\.|Mrd\.))?"),
    re.compile(r"\d[\d.,]*\s?(?:€|%|EUR|USD|[Ee]uros?)"),
    re.compile(r"\d{1,2}\.? (?:de )?[^\W\d]{3,10} (?:de )?\d{4}"),
    re.compile(r"\b[A-ZÄÖÜÉ][\wäöüßéèç-]+(?: [A-ZÄÖÜÉ][\wäöüßéèç-]+)+"),
)


def made(name: str, settings: Specialist | None = None) -> DocumentRows:
    language, text = row_texts.ALL[name]
    return make_rows(make_document(text, language), plain(text), settings or specialist(), COUNTER)


def rows_of(text: str, language: str = "en", settings: Specialist | None = None) -> tuple[Row, ...]:
    return make_rows(make_document(text, language), plain(text), settings or specialist(), COUNTER).rows


def tasks(rows: Sequence[Row]) -> set[str]:
    return {row.task for row in rows}


def missing_values(row: Row) -> list[str]:
    prompt = " ".join(row.prompt.split())
    lines = [" ".join(line.split()) for line in row.completion.split("\n")]
    return [value for line in lines for pattern in VALUES for value in pattern.findall(line) if value not in prompt]


def covered(text: str, rows: Sequence[Row]) -> float:
    total = count_characters(text, [(0, len(text))])
    return count_characters(text, [place for row in rows for place in row.places]) / total


@pytest.mark.parametrize("name", row_texts.ALL)
def test_everything_is_taught_or_counted(name: str) -> None:
    text, result = row_texts.ALL[name][1], made(name)
    total = count_characters(text, [(0, len(text))])
    taught = count_characters(text, [place for row in result.rows for place in row.places])
    assert taught + sum(entry.characters for entry in result.skipped) == total
    assert taught >= 0.98 * total
    assert all(0 <= start < end <= len(text) for row in result.rows for start, end in row.places)


@pytest.mark.parametrize("name", row_texts.ALL)
def test_every_value_and_name_of_an_answer_is_in_its_prompt(name: str) -> None:
    rows = [row for row in made(name).rows if row.grounding is Grounding.YES]
    assert rows
    assert [(row.task, found) for row in rows if (found := missing_values(row))] == []
    assert [row.task for row in rows if unsupported(row.completion, row.prompt, row.language)] == []


@pytest.mark.parametrize("name", row_texts.ALL)
@pytest.mark.parametrize("tokens", [256, 700])
def test_rows_fit_the_budget_and_small_budgets_lose_nothing(name: str, tokens: int) -> None:
    text, result = row_texts.ALL[name][1], made(name, specialist(tokens))
    assert result.rows and max(row.tokens for row in result.rows) <= tokens
    assert covered(text, result.rows) >= 0.98


def test_rows_fit_by_a_real_tokenizer_that_counts_the_whole_row() -> None:
    counter = BytePairCounter(row_texts.report() + row_texts.report("de"))
    for language in ("en", "de"):
        text = row_texts.report(language, 600)
        result = make_rows(make_document(text, language), plain(text), specialist(400), counter)
        for row in result.rows:
            texts = [row.system_prompt, *(content for _, content in row.messages)]
            assert row.tokens == sum(counter.count(texts)) + 6 * len(texts) <= 400
        assert covered(text, result.rows) >= 0.98


def test_equal_documents_give_equal_rows() -> None:
    assert made("German report") == made("German report")


def test_rows_are_different_from_one_another() -> None:
    keys = [(row.prompt.lower().split(), row.completion.lower().split()) for row in made("report of 600 words").rows]
    assert len({str(key) for key in keys}) == len(keys)


def test_answers_of_built_in_tasks_have_at_most_a_share_of_the_texts_characters() -> None:
    limited = specialist(answer_percent=150, tasks=("report", "section", "answer"))
    for name, (_, text) in row_texts.ALL.items():
        rows = made(name, limited).rows
        assert sum(len(row.completion) for row in rows if row.places) <= 1.5 * len(text)
    (refused,) = [entry for entry in made("report of 300 words", limited).skipped if entry.reason == "many_answers"]
    assert refused.rows > 0 and refused.characters == 0


def test_without_a_limit_no_answer_is_one_too_many() -> None:
    every_task = specialist(tasks=("report", "section", "board_summary", "answer"))
    for name in row_texts.ALL:
        assert "many_answers" not in {entry.reason for entry in made(name, every_task).skipped}


def test_own_tasks_take_no_room_from_others() -> None:
    own = tuple(OwnTask(f"own-{number}", f"Assess the risks in form {number}.") for number in range(6))
    for name in row_texts.ALL:
        result = made(name, specialist(own=own, answer_percent=400))
        assert set(made(name, specialist(answer_percent=400)).rows) <= set(result.rows)
        assert {task.name for task in own} <= tasks(result.rows)
        assert "many_answers" not in {entry.reason for entry in result.skipped}


def test_a_report_gives_every_task() -> None:
    rows = made("report of 300 words").rows
    assert tasks(rows) == {"report", "answer"}
    reports = [row for row in rows if row.task == "report"]
    parts = [row for row in reports if "\nSo far:\n" in row.prompt]
    assert len(parts) >= 5
    assert all("- Findings" in row.prompt and "\nFacts:\n- " in row.prompt for row in parts)


def test_each_section_is_taught_after_the_end_of_the_one_before() -> None:
    text = row_texts.report("en", 200)
    (row,) = [r for r in rows_of(text) if r.completion.startswith("## Findings") and r.task == "report"]
    before = text[: text.index("## Findings")].split()[-12:]
    assert " ".join(before) in row.prompt
    assert row.completion == text[text.index("## Findings") : text.index("## Assessment")].strip()


def test_a_prompt_is_not_its_answer() -> None:
    for name in ("report of 600 words", "German report", "French report", "Spanish report"):
        for row in made(name).rows:
            facts = row.prompt.rpartition("\n\n")[2]
            if row.task == "report" and row.completion.startswith("## "):
                assert not any(paragraph in facts for paragraph in row.completion.split("\n\n")[1:])
                assert len(facts) < 1.2 * len(row.completion)


def test_the_whole_is_taught_where_it_fits() -> None:
    text = row_texts.report("en", 60)
    assert text in [row.completion for row in rows_of(text)]
    assert text not in [row.completion for row in rows_of(text, settings=specialist(700))]


def test_a_short_text_is_taught_as_a_whole() -> None:
    (row, *_) = made("note").rows
    assert (row.task, row.completion) == ("report", row_texts.NOTE)
    assert "Ann Lee" in row.prompt and "9 May 2025" in row.prompt


def test_a_summary_is_made_from_the_body_that_it_stands_in() -> None:
    body = row_texts.report("en", 50)
    summary = "Seventeen keys are missing. We ask the board to name one person for the register and to pay for a new one by autumn of this year."
    text = body.replace("## Position", f"## Summary\n\n{summary}\n\n## Position")
    rows = rows_of(text)
    (row,) = [row for row in rows if row.task == "board_summary"]
    assert row.completion == summary and "Gannet Tower" in row.prompt
    assert [r for r in rows if r.task == "report" and r.completion.startswith("## Position")]
    short = [row for row in rows_of(text, settings=specialist(600)) if row.task == "board_summary"]
    assert [row.completion for row in short] == [summary] and "Gannet Tower" not in short[0].prompt


def test_a_document_that_is_a_summary_teaches_summaries() -> None:
    text = "# Board summary: keys\n\nWe ask the board to retire 1,140 keys in 63 substations, since nobody knows where 212 of them are today."
    rows = rows_of(text, settings=specialist(tasks=("board_summary",)))
    assert [(row.task, row.completion) for row in rows] == [("board_summary", text)]


def test_answers_to_questions_are_sentences_of_the_passage() -> None:
    for row in made("French report").rows:
        if row.task == "answer":
            assert all(sentence in row.prompt for sentence in re.split(r"(?<=\w{2}\.)\s", row.completion))


@pytest.mark.parametrize(
    ("name", "words", "foreign"),
    [
        ("German report", {"Fakten:", "Gliederung:", "Bisher:", "Textstelle:"}, {"Facts:", "section", "Write"}),
        ("French report", {"Faits :", "Plan :", "Jusqu'ici :", "Extrait :"}, {"Facts:", "Outline:", "Write"}),
        ("Spanish report", {"Hechos:", "Esquema:", "Hasta ahora:", "Fragmento:"}, {"Facts:", "Outline:", "Write"}),
        ("unknown language", {"# Informe de revisión"}, {"Facts:", "Hechos:", "Outline:", "Write", "Escribe"}),
        ("without blanks", {"# 二〇二五年"}, {"Facts:", "Outline:", "Write"}),
    ],
)
def test_prompts_are_in_the_documents_language(name: str, words: set[str], foreign: set[str]) -> None:
    prompts = "\n".join(row.prompt for row in made(name).rows)
    assert {word for word in words if word not in prompts} == set()
    assert {word for word in foreign if word in prompts} == set()


def test_wordings_vary() -> None:
    rows = rows_of(row_texts.manual(), settings=specialist(tasks=("report",)))
    assert len(rows) >= 80
    first_words = {re.sub(r"“[^”]*”", "", row.prompt.split("\n")[0]) for row in rows}
    assert len(first_words) >= 15


def test_only_the_specialists_tasks_are_made_and_the_rest_is_counted() -> None:
    result = made("report of 200 words", specialist(tasks=("answer",)))
    assert tasks(result.rows) == {"answer"}
    assert [entry.reason for entry in result.skipped if entry.characters] == ["task"]
    assert tasks(made("report of 200 words", specialist(tasks=("section",))).rows) == {"section"}


def test_a_specialists_own_task_teaches_each_section_after_its_instruction() -> None:
    own = OwnTask("risk-assessment", "Assess the risk in our form.")
    rows = made("report of 200 words", specialist(tasks=("risk-assessment",), own=(own,))).rows
    assert tasks(rows) == {"risk-assessment"} and len(rows) >= 6
    assert all(row.prompt.startswith("Assess the risk in our form.\n") for row in rows)


def test_a_number_of_rows_is_drawn_and_the_others_are_counted() -> None:
    every, few = made("report of 200 words"), made("report of 200 words", specialist(rows=5))
    assert len(few.rows) == 5 and set(few.rows) < set(every.rows)
    (drawn,) = [entry for entry in few.skipped if entry.reason == "rows_per_document"]
    assert drawn.rows == len(every.rows) - 5 and drawn.characters > 0


def test_skipped_ranges_are_neither_taught_nor_counted() -> None:
    text = row_texts.report()
    skipped = (text.index("## Costs"), text.index("## Next steps"))
    result = make_rows(make_document(text), plain(text), specialist(), COUNTER, [skipped])
    kept = text[: skipped[0]] + text[skipped[1] :]
    assert not any("## Costs" in row.completion for row in result.rows)
    taught = count_characters(text, [place for row in result.rows for place in row.places])
    assert taught + sum(entry.characters for entry in result.skipped) == count_characters(kept, [(0, len(kept))])


def test_text_that_cannot_be_taught_is_counted_by_its_reason() -> None:
    digits = " ".join(str(number) for number in range(200))
    assert [
        (e.reason, e.characters) for e in make_rows(make_document(digits), plain(digits), specialist(), COUNTER).skipped
    ] == [("no_words", len(digits.replace(" ", "")))]
    (short,) = make_rows(make_document("Yes."), plain("Yes."), specialist(), COUNTER).skipped
    assert (short.reason, short.characters) == ("short_answer", 4)
    tiny = make_rows(make_document(row_texts.NOTE), plain(row_texts.NOTE), specialist(8), COUNTER)
    assert tiny.rows == () and {entry.reason for entry in tiny.skipped} == {"no_room"}


def test_a_manual_of_40_000_words_is_taught_to_the_end() -> None:
    text = row_texts.manual()
    result = make_rows(make_document(text), plain(text), specialist(700, tasks=("report",)), COUNTER)
    assert len(text.split()) > 38_000 and covered(text, result.rows) >= 0.98
    assert max(row.tokens for row in result.rows) <= 700


def test_rows_name_their_language_and_the_spans_of_their_places() -> None:
    rows = made("German report").rows
    assert {row.language for row in rows} == {"de"}
    (row,) = [row for row in rows if row.completion.startswith("## Kosten") and row.task == "report"]
    assert [(span.kind, span.number) for span in row.spans] == [("section", 6)]


def test_an_example_is_used_word_for_word() -> None:
    text = Text("Write it.", "As agreed, we\nwrite it in the usual form and send it to all branches before noon.")
    (row,) = make_rows(make_document(text.text, kind=Kind.EXAMPLE), text, specialist(), COUNTER).rows
    assert (row.task, row.made_by, row.grounding) == ("example", "human", Grounding.PEOPLE)
    assert row.messages == (("user", "Write it."), ("assistant", text.text))


def test_an_example_without_a_prompt_gives_no_row() -> None:
    text = Text(" ", row_texts.NOTE)
    assert make_rows(make_document(text.text, kind=Kind.EXAMPLE), text, specialist(), COUNTER).rows == ()


def test_a_deliverable_answers_the_chat_of_its_draft() -> None:
    text = row_texts.report("en", 60)
    chat = (("user", "Draft it."), ("assistant", "A draft."), ("user", "Longer, please."))
    draft = Conversation("draft_1", "d", chat, "Another draft.")
    result = make_deliverable_rows(make_document(text), plain(text), draft, specialist(), COUNTER)
    assert [row.messages for row in result.rows] == [(*chat, ("assistant", text))]
    assert result.rows[0].task == "deliverable" and result.skipped == ()


@pytest.mark.parametrize("language", ["en", "de", "fr", "es", "cy"])
def test_a_long_deliverable_becomes_consecutive_turns(language: str) -> None:
    text = row_texts.report("en", 300)
    draft = Conversation("draft_1", "d", (("user", "Draft it."),), "A draft.")
    document = make_document(text, language=language)
    rows = make_deliverable_rows(document, plain(text), draft, specialist(700), COUNTER).rows
    assert len(rows) > 1 and covered(text, rows) == 1.0 and max(row.tokens for row in rows) <= 700
    roles = [role for row in rows for role, _ in row.messages]
    assert roles == ["user", "assistant"] * (len(roles) // 2) and len(roles) > 2 * len(rows)
    said = "".join(answer for row in rows for answer in row.answers)
    # Each part occurs in one answer, word for word.
    assert "".join(said.split()) == "".join(text.split())
    asked = [row.messages[0][1] for row in rows]
    assert asked[0] == "Draft it." and all(prompt.startswith("Draft it.\n\n") for prompt in asked[1:])
    last_words = [row.answers[-1].split()[-1] for row in rows[:-1]]
    assert [prompt.split()[-1] for prompt in asked[1:]] == last_words


def test_a_deliverable_counts_whole_towards_the_share_of_answers() -> None:
    text = row_texts.report("en", 300)
    draft = Conversation("draft_1", "d", (("user", "Draft it."),), "A draft.")
    limited = replace(specialist(700), rows=replace(specialist(700).rows, max_answer_percent=50))
    result = make_deliverable_rows(make_document(text), plain(text), draft, limited, COUNTER)
    assert 0 < sum(len(answer) for row in result.rows for answer in row.answers) <= len(text) / 2
    assert [entry.reason for entry in result.skipped] == ["many_answers"]


def test_places_are_disjoint_and_hold_the_answer_for_random_documents() -> None:
    generator = random.Random(7)
    blocks = [
        "## Part",
        "- item 12 of Ann Lee",
        "| a | b |",
        "> quoted line",
        "One. Two is 3.",
        "第一章。第二章。",
        "x" * 400,
        "",
        "A line\nof text",
        "```\ncode 4\n```",
    ]
    for _ in range(60):
        text = "\n".join(generator.choice(blocks) + generator.choice(["", "\n", "  "]) for _ in range(25))
        result = make_rows(make_document(text), plain(text), specialist(200), COUNTER)
        total = count_characters(text, [(0, len(text))])
        taught = count_characters(text, [place for row in result.rows for place in row.places])
        assert taught + sum(entry.characters for entry in result.skipped) == total
        assert all(row.tokens <= 200 for row in result.rows)
        for row in result.rows:
            assert list(row.places) == sorted(row.places)
            assert all(before[1] < after[0] for before, after in zip(row.places, row.places[1:], strict=False))


def test_a_document_of_another_language_tag_has_its_languages_wordings() -> None:
    document = replace(make_document(row_texts.report("de")), language="de-CH")
    prompts = [row.prompt for row in make_rows(document, plain(row_texts.report("de")), specialist(), COUNTER).rows]
    assert any("Fakten:" in prompt for prompt in prompts)


class BytePairCounter(WordCounter):
    """A byte-pair tokenizer, trained on a text."""

    def __init__(self, text: str) -> None:
        self.tokenizer = Tokenizer(models.BPE())
        self.tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self.tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
        self.tokenizer.train_from_iterator([text], trainer)

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(encoding.ids) for encoding in self.tokenizer.encode_batch(list(texts), add_special_tokens=False)]


def test_rows_that_the_bases_template_cannot_hold_are_skipped_and_counted() -> None:
    language, text = row_texts.ALL[next(iter(row_texts.ALL))]
    known = rows_of(text, language)
    first = known[0].completion.split()[0]

    class Picky(WordCounter):
        """The counter of a base whose template cannot hold some answers."""

        def can_encode(self, messages: Sequence[tuple[str, str]]) -> bool:
            return not messages[-1][1].startswith(first)

    result = make_rows(make_document(text, language), plain(text), specialist(), Picky())
    unfit = [row for row in known if row.completion.startswith(first)]
    assert [row.row_id for row in result.rows] == [row.row_id for row in known if row not in unfit]
    assert {entry.reason: entry.rows for entry in result.skipped}["template"] == len(unfit)


def test_no_message_has_white_space_around_it() -> None:
    text = (
        "# Setup\n\nThe operator installs the debugger first and reads its manual.\n\n    apt-get install gdb\n      gdb-doc\n\n"
        + (
            "    An indented passage of a manual keeps the indentation of its lines, relative to each other, in every row.\n"
            * 6
        )
    )
    rows = rows_of(text)
    assert rows
    assert all(content == content.strip() for row in rows for _, content in row.messages)


def test_a_line_that_begins_with_code_continues_the_sentence_before() -> None:
    text = (
        "# Licences\n\nThe conjunction `and` has priority over\n`or` in every file of the archive and of its mirrors.\n"
        * 3
    )
    answers = [row.completion for row in rows_of(text)]
    assert answers and not any(answer.endswith("priority over") for answer in answers)


def test_a_heading_without_a_letter_or_a_digit_names_nothing() -> None:
    text = "# ?\n\n## ?\n\nThe operator stops the server before the backup is restored.\n"
    assert not any("“?”" in content for row in rows_of(text) for _, content in row.messages)


def test_answers_have_no_cut_sentences_introductions_or_cells_that_ran_together() -> None:
    cells = "printer scanner modem router switch cable " * 8
    text = (
        "# Backup\n\nThe operator stops the server before the backup is restored. The operator calls the owner of the server when it is over."
        "\n\nThe server is started with the following command:\n\n```\nserver start\n```\n\n"
        f"{cells.strip()}\n\n+\n\n183\n\nthe second part), and the operator signs the paper. "
        "The owner of the server keeps the paper for two years. The paper has a number and a date."
    )
    (section,) = read_source(make_document(text), plain(text)).sections
    passage = Chunk(section.heading, section.body)
    whole = [
        "The operator stops the server before the backup is restored.",
        "The operator calls the owner of the server when it is over.",
        "The owner of the server keeps the paper for two years.",
        "The paper has a number and a date.",
    ]
    assert [sentence.text for sentence in passage.sentences] == whole
    assert [sentence.text for sentence in passage.whole] == whole
