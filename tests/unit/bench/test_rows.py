"""The rows bench's own documents, choices, measures and page."""

import itertools
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench import rows_check, rows_learning, rows_old, rows_page, rows_questions, rows_real
from bench.rows_check import Answers
from bench.rows_learning import Result
from bench.rows_texts import DISTANCE, NEAR_DUPLICATE_EVERY, Generator, Paper
from services.synthetic.ports import TokenCounter

pytestmark = pytest.mark.release

WORDS = [f"word{letter}{number}" for letter in "abcdefgh" for number in "123456789"]


@pytest.fixture(scope="module")
def generator() -> Generator:
    return Generator()


class WordCounter(TokenCounter):
    """Counts words."""

    digest, context_tokens = "words", 1000

    def template_tokens(self, contents: Sequence[str], *, has_system: bool) -> int:
        return 0

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def can_encode(self, messages: Sequence[tuple[str, str]]) -> bool:
        return True


def text_of(seed: int, count: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=count))


def answers_of(*texts: str, document: str = "") -> Answers:
    names = [document or f"doc_{number}" for number in range(len(texts))]
    return Answers(texts, names, list(range(len(texts))))


def test_a_number_gives_the_same_document_and_others_give_others(generator: Generator) -> None:
    assert list(generator.papers(5, 3)) == [generator.paper(number) for number in (5, 6, 7)]
    assert len({paper.text for paper in generator.papers(0, 100)}) == 100
    assert {paper.language for paper in generator.papers(0, 100)} == {"en", "de", "fr", "es"}


def test_generated_documents_have_about_two_pages_and_seldom_the_same_words(generator: Generator) -> None:
    papers = list(generator.papers(0, 60))
    lengths = [len(paper.text) for paper in papers]
    assert 3_500 < sum(lengths) / len(lengths) < 6_500
    grams = [set(rows_check.hash_runs(paper.text.split(), 13).tolist()) for paper in papers]
    shared = sum(not first.isdisjoint(second) for first, second in itertools.pairwise(grams))
    assert shared < 20


def test_a_revision_repeats_the_earlier_document_and_adds_sentences(generator: Generator) -> None:
    number = next(n for n in range(NEAR_DUPLICATE_EVERY - 1, 200, NEAR_DUPLICATE_EVERY) if n % 2)
    earlier, revision = generator.paper(number - DISTANCE), generator.paper(number)
    assert earlier.text[:2000] == revision.text[:2000] and len(revision.text) > len(earlier.text)


def test_every_section_of_a_generated_document_has_a_span(generator: Generator) -> None:
    paper = next(paper for paper in generator.papers(0, 50) if paper.source == "report")
    assert all(paper.text[span.start] == "#" for span in paper.spans)
    assert len(paper.spans) == sum(line.startswith("#") for line in paper.text.split("\n"))


def test_words_are_taught_if_an_answer_has_a_run_of_five_of_them() -> None:
    first, second = text_of(1, 60), text_of(2, 60)
    paper = Paper("a", f"{first}\n\n{second}")
    assert rows_check.word_coverage([paper], [paper.text]) == 1
    assert rows_check.word_coverage([paper], [f"# A heading\n\n{first}"]) == pytest.approx(0.5, abs=0.05)
    assert rows_check.word_coverage([paper], [" ".join(reversed(first.split()))]) == 0
    assert rows_check.word_coverage([paper], []) == 0


def test_places_of_documents_without_rows_do_not_count() -> None:
    papers = [Paper("a", "abcd efgh"), Paper("b", "ijkl")]
    rows = [{"document_ids": [papers[0].document_id], "places": [{"start": 0, "end": 4}, {"start": 2, "end": 4}]}]
    assert rows_check.place_coverage(papers, rows) == 0.5


@pytest.mark.parametrize(
    ("answer", "language", "missing"),
    [
        ("The fee of 1,200 was paid by Norbury on 4 May.", "en", ["4", "May"]),
        ("Norbury paid 1,200.", "en", []),
        ("The Committee met. Nobody came.", "en", ["Committee"]),
        ("Der Ausschuss zahlte 12.", "de", ["12"]),
        ("", "en", []),
    ],
)
def test_numbers_and_names_that_the_prompt_does_not_have_are_unsupported(
    answer: str, language: str, missing: list[str]
) -> None:
    assert rows_check.unsupported(answer, "Norbury owed a fee of 1,200.", language) == missing


def test_rows_by_people_and_closed_questions_are_not_held_to_their_prompt() -> None:
    def row(grounding: str, answer: str) -> dict[str, object]:
        messages = [{"role": "user", "content": "Say 12."}, {"role": "assistant", "content": answer}]
        return {"grounding": grounding, "messages": messages, "language": "en"}

    rows = [row("yes", "It is 12."), row("yes", "It is 13."), row("closed", "It is 14."), row("people", "It is 15.")]
    assert rows_check.grounded_share(rows) == 0.5


def test_an_answer_overlaps_if_a_few_documents_of_train_have_thirteen_of_its_words() -> None:
    shared, boilerplate = text_of(3, 13), text_of(4, 13)
    held_out = [answers_of(f"{text_of(5, 20)} {shared}", f"{boilerplate} {text_of(6, 20)}", text_of(7, 20), "")]
    train = [answers_of(f"{shared.upper()} {text_of(8, 20)}"), answers_of(*[boilerplate] * 10)]
    assert rows_check.measure_overlap(held_out, train) == 0.25
    assert rows_check.measure_overlap(held_out, [answers_of(*[boilerplate] * 9)]) == 0.25
    assert rows_check.measure_overlap(held_out, [answers_of(*[boilerplate] * 10, document="same")]) == 0.25
    assert rows_check.measure_overlap([], train) == 0


def test_before_long_sections_were_dropped_and_a_document_gave_two_rows() -> None:
    short, long = (
        "A short text says what has to be done next, by whom and until when, in a hundred characters or so.",
        "x " * 700,
    )
    sections = "".join(f"## Part {number}\n\n{short}\n\n" for number in range(5))
    assert len(rows_old.make_rows("doc", f"# Report: gates\n\n{sections}", "")) == 2
    assert rows_old.make_rows("doc", f"# Report: gates\n\n## Part\n\n{long}", "") == []


def test_half_of_the_chosen_files_are_manual_pages_if_there_are_enough_others() -> None:
    pages = [Path(f"/usr/share/man/man1/{number}.1.gz") for number in range(50)]
    others = [Path(f"/usr/share/doc/{number}/README") for number in range(50)]
    chosen = rows_real.choose([*pages, *others], 20)
    assert sum(path in pages for path in chosen) == 10 and len(chosen) == 20
    assert len(rows_real.choose([*pages, *others[:3]], 20)) == 20
    assert rows_real.choose(reversed([*pages, *others]), 20) == chosen
    # A prefix has both, so that documents that arrive later are of both sorts.
    assert {path in pages for path in chosen[:10]} == {True, False}


def test_one_package_or_command_gives_at_most_twenty_files() -> None:
    pages = [Path(f"/usr/share/man/man1/{name}_{number}.1.gz") for name in ("one", "two") for number in range(40)]
    others = [Path(f"/usr/share/doc/{name}/{number}.md") for name in ("one", "two", "three") for number in range(40)]
    chosen = rows_real.choose([*pages, *others], 200)
    assert sum(path in pages for path in chosen) == 40 and sum(path in others for path in chosen) == 60


def test_documents_of_a_package_are_on_one_side_and_short_or_foreign_ones_are_not_held_out() -> None:
    long, texts = text_of(1, 300), ("en", "de")
    papers = [
        Paper(f"/usr/share/doc/package{number}/{name}.md", long, language)
        for number in range(40)
        for name in "ab"
        for language in texts
    ]
    train, kept = rows_learning.split_families(papers)
    families = [{rows_real.find_family(Path(paper.name)) for paper in side} for side in (train, kept)]
    assert families[0].isdisjoint(families[1]) and len(families[0] | families[1]) == 40
    assert 2 <= len(families[1]) <= 12 and {paper.language for paper in kept} == {"en"}
    assert rows_learning.split_families([Paper(paper.name, "Short.", "en") for paper in kept])[1] == []


def test_rows_are_drawn_until_they_have_enough_tokens() -> None:
    rows = [
        {"row_id": str(number), "messages": [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "c"}]}
        for number in range(20)
    ]
    assert len(rows_learning.draw_rows(rows, WordCounter(), 10)) == 4
    assert rows_learning.draw_rows(rows, WordCounter(), 10) == rows_learning.draw_rows(rows[::-1], WordCounter(), 10)
    assert len(rows_learning.draw_rows(rows, WordCounter(), 1000)) == 20


def test_parts_follow_the_words_that_their_prompts_have() -> None:
    words = [f"w{number}" for number in range(500)]
    parts = rows_questions.make_parts(Paper("a", "\n ".join(words)))
    assert [part.form for part in parts] == [rows_questions.FILE, rows_questions.SPACED]
    for part in parts:
        start = words.index(part.answer.split()[0])
        assert part.answer.split() == words[start : start + rows_questions.PART_WORDS]
        before = part.prompt.partition("\n\n")[2]
        assert before.split() == words[start - rows_questions.BEFORE_WORDS : start]
    assert "\n" in parts[0].answer and "\n" not in parts[1].answer


def test_parts_that_share_thirteen_words_with_a_train_document_are_skipped() -> None:
    parts = [rows_questions.HeldOutQuestion("a", "", "", text_of(seed, 40)) for seed in (1, 2, 3)]
    train = [Paper("b", f"{text_of(9, 30)} {text_of(2, 40).upper()}"), Paper("c", text_of(8, 12))]
    assert rows_questions.without_shared(parts, train) == [parts[0], parts[2]]
    assert rows_questions.without_shared(parts, []) == parts
    assert rows_questions.without_shared([], train) == []


def test_facts_are_short_sentences_with_a_number_or_a_name() -> None:
    text = f"{'Nothing. ' * 40}The fee was 12 pounds. It rained all day long. We asked Norbury for help. {'Much ' * 20}with 13 words."
    assert rows_questions.find_facts(text) == ["The fee was 12 pounds", "We asked Norbury for help"]


def test_every_document_is_asked_about_with_its_facts_in_a_list_and_in_a_line() -> None:
    facts = ["The fee was 12 pounds", "We asked Norbury for help", "They owed 300 more pounds"]
    paper = Paper("a", f"A title\n\n{'Nothing. ' * 40}{'. '.join(facts)}. {'Nothing. ' * 9}")
    listed, line = rows_questions.make_questions([paper])
    assert listed.prompt.endswith("\n- ".join([":", *facts])) and line.prompt.endswith(f"{'; '.join(facts)}.")
    assert rows_questions.make_questions([Paper("b", f"{'Nothing. ' * 40}{facts[0]}.")]) == []


def test_an_answer_uses_the_values_of_the_facts_that_it_has() -> None:
    facts = "The fee was 12 pounds; We asked Norbury for help"
    assert rows_learning.count_used("Norbury was asked.", facts) == (1.0, 2.0)
    assert rows_learning.count_used("", facts) == (0.0, 2.0)
    assert rows_learning.count_values("In 2019 we paid Norbury 12.", "Norbury: 12") == (1.0, 3.0)


def result_of(losses: dict[str, tuple[float, float]], others: dict[str, tuple[float, float]]) -> Result:
    measures = {("loss", form): losses for form in rows_learning.MEASURES["loss"]}
    measures |= {
        (name, form): others for name in ("fabrication", "facts_used") for form in rows_learning.MEASURES[name]
    }
    return Result(measures, ["two words"])


def test_intervals_contain_the_measure_and_shrink_to_it_if_all_documents_are_alike() -> None:
    mixed = result_of({str(number): (float(number % 3), 1.0) for number in range(30)}, {"a": (1.0, 4.0)})
    summary = rows_learning.summarise(mixed)
    assert summary["loss"]["low"] < summary["loss"]["value"] == 1.0 < summary["loss"]["high"]
    assert summary["fabrication"] == {"value": 0.25, "low": 0.25, "high": 0.25}
    assert (summary["values"], summary["answer_words"]) == (8, 2.0)
    better = result_of(
        {key: (loss / 2, tokens) for key, (loss, tokens) in mixed.pairs["loss", "file"].items()}, {"a": (1.0, 4.0)}
    )
    assert rows_learning.compare(better, mixed)["loss_file"]["high"] < 0
    assert rows_learning.compare(mixed, mixed)["loss"] == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_the_page_has_both_ways_to_count_and_what_was_skipped(tmp_path: Path) -> None:
    counted = {"coverage": 0.951, "grounded": 0.99, "overlap": 0.0}
    sizes = dict.fromkeys(
        ("documents", "characters", "near_duplicates", "rows", "train_tokens", "held_out_rows", "event_bytes", "intake_seconds", "seconds",
         "incremental_seconds", "intake_peak_rss_mb", "peak_rss_mb", "cpu_seconds"), 1234)  # fmt: skip
    skipped = {"no_words": {"documents": 2, "rows": 3, "characters": 40}}
    figures = {"generated": {**counted, **sizes, "recomputed": {**counted, "coverage": 0.942}, "skipped": skipped}}
    page = rows_page.render(figures)
    assert "| coverage, by the manifest | 0.951 |" in page and "| coverage, recomputed | 0.942 |" in page
    assert "| cpu seconds | 1,234.0 |" in page and "| intake cpu seconds | - |" in page
    assert "no_words (2 documents, 3 rows, 40 characters)" in page
    result = result_of({"a": (2.0, 1.0)}, {"a": (1.0, 4.0)})
    side = {
        "all_rows": 9,
        "coverage": 0.5,
        "rows": 8,
        "tokens": 7,
        "answer_tokens": 6,
        **rows_learning.summarise(result),
    }
    counts = dict.fromkeys(("parts", "shared_parts", "held_out_documents", "train_documents", "questions"), 5)
    differences = rows_learning.compare(result, result)
    learning = {
        **counts,
        "base": rows_learning.summarise(result),
        "old": side,
        "new": side,
        "new_minus_old": differences,
    }
    page = rows_page.render(figures | {"learning": learning})
    assert "| rows of before | 9 | 0.500 | 8 | 7 | 6 |" in page and "fabrication 0.000 [0.000, 0.000]" in page
    rows_page.plot(figures | {"learning": learning}, tmp_path / "rows.svg")
    assert (tmp_path / "rows.svg").read_text(encoding="utf-8").startswith("<?xml")
