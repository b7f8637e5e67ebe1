"""Wordings of prompts by language."""

import re

import pytest

from services.synthetic.rows.templates import FOLDER, draw, expand, fill, has_templates, load_templates

LANGUAGES = ("en", "de", "fr", "es")
TASKS = {
    "section": {"heading", "title"},
    "next": {"title"},
    "continue": set(),
    "whole": {"title"},
    "board_summary": {"title"},
    "answer": {"topic"},
}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_twenty_different_wordings_with_the_fields_that_it_needs(language: str, task: str) -> None:
    templates = load_templates(language)
    assert templates is not None
    wordings = templates.wordings[task]
    assert len(set(wordings)) >= 20
    for wording in wordings:
        fields = set(re.findall(r"\{(\w+)\}", wording))
        assert fields == TASKS[task] and not re.search(r"[\[\]|]|\s\s|\A\s|\s\Z", wording)


@pytest.mark.parametrize("language", LANGUAGES)
def test_labels_are_there(language: str) -> None:
    templates = load_templates(language)
    assert templates is not None
    assert set(templates.labels) == {"facts", "outline", "so_far", "passage"}
    assert set(templates.wordings) == set(TASKS)


def test_each_file_is_a_language_of_the_tests() -> None:
    assert {path.stem for path in FOLDER.glob("*.toml")} == set(LANGUAGES)


def test_a_tag_with_a_region_has_its_languages_templates_and_others_have_none() -> None:
    assert load_templates("de-AT") == load_templates("de") and has_templates("EN")
    assert load_templates("ja") is None and not has_templates("") and not has_templates("und")


def test_alternatives_are_expanded() -> None:
    assert expand("[Write|Draft] “{title}”[.|, please.]") == [
        "Write “{title}”.",
        "Write “{title}”, please.",
        "Draft “{title}”.",
        "Draft “{title}”, please.",
    ]


def test_braces_in_values_stay() -> None:
    assert fill("On “{title}”", title="{topic} {0}") == "On “{topic} {0}”"


def test_draws_use_all_wordings_and_repeat() -> None:
    drawn = [draw(20, "task", number) for number in range(400)]
    assert set(drawn) == set(range(20)) and drawn == [draw(20, "task", number) for number in range(400)]
