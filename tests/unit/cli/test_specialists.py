"""`tailor specialist` with the limits on rows."""

from pathlib import Path

import pytest

from tailor.api.events.v1 import drafts_pb2, models_pb2
from tests.unit.cli.conftest import Services, Tailor

DEFINITION = """\
name = "engagement-reports"
base = "tiny"
recipe = "lora"

[rows]
max_row_tokens = 400
tasks = ["report", "risk-assessment"]

[[rows.own_tasks]]
name = "risk-assessment"
instruction = "Assess the risk of the finding."
"""

MEASURED = """
[sampling]
repetition_penalty = 1.05
thinking = "hidden"

[[metrics]]
name = "house"
kind = "terms"
terms = ["a"]
at = 2

[evaluation]
max_rows = 50
guidelines = "Be brief."

[[evaluation.criteria]]
name = "tone"
description = "Sounds like a colleague."
"""


def test_takes_limits_from_toml(tailor: Tailor, tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text(DEFINITION)

    rows = tailor("specialist", "create", str(file), "--output=json").document["specialist"]["rows"]

    assert (rows["max_row_tokens"], rows["held_out_percent"]) == (400, 0)
    assert rows["own_tasks"] == [{"name": "risk-assessment", "instruction": "Assess the risk of the finding."}]


def test_names_a_limit_that_does_not_exist(tailor: Tailor, tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text(DEFINITION.replace("max_row_tokens", "max_tokens_of_rows"))

    result = tailor("specialist", "create", str(file))

    assert result.code != 0
    assert "max_tokens_of_rows" in result.err


def test_update_replaces_the_definition_and_shows_its_limits(
    tailor: Tailor, services: Services, tmp_path: Path
) -> None:
    file = tmp_path / "s.toml"
    file.write_text(DEFINITION)

    assert "Specialist engagement-reports has revision 2." in tailor("specialist", "update", str(file)).out

    shown = " ".join(tailor("specialist", "show", "engagement-reports").out.split())
    assert "max_row_tokens = 400" in shown and 'tasks = [ "report", "risk-assessment", ]' in shown
    assert "held_out_percent = 12" in shown and "max_held_out_rows = 2000" in shown
    assert services.registry.specialist.rows.max_row_tokens == 400


def test_update_keeps_to_the_revision_in_the_file(tailor: Tailor, tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text("revision = 7\n" + DEFINITION)

    result = tailor("specialist", "update", str(file))

    assert result.code != 0
    assert "Current revision is 1. Reload and retry." in result.err


def test_takes_a_pipeline_from_toml_and_shows_it_with_what_the_next_round_lacks(
    tailor: Tailor, services: Services, tmp_path: Path
) -> None:
    file = tmp_path / "s.toml"
    pipeline = 'stages = ["sft", "reward", "rloo"]\n[recipes]\nrloo = "gentle"\n'
    file.write_text(DEFINITION.replace('recipe = "lora"\n', f'recipe = "lora"\n{pipeline}'))
    tailor("specialist", "update", str(file))
    assert dict(services.registry.specialist.recipes) == {"rloo": "gentle"}
    services.registry.round = drafts_pb2.RoundProgress(sentence="9 ranked prompts; a round needs 42: 33 to go.")

    shown = tailor("specialist", "show", "engagement-reports").out

    assert "pipeline\tsft (lora), reward, rloo (gentle)" in shown
    assert "next round\t9 ranked prompts; a round needs 42: 33 to go." in shown


def test_says_what_takes_the_place_of_the_recipe_for_preferences(tailor: Tailor, tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text(f'preference_recipe = "dpo"\n{DEFINITION}')

    refused = tailor("specialist", "create", str(file))

    assert refused.code != 0
    assert 'write `stages = ["sft", "dpo"]`' in refused.err


def test_shows_a_specialist_without_limits(tailor: Tailor) -> None:
    assert "held_out_percent = 12" in tailor("specialist", "show", "engagement-reports").out


def test_takes_words_and_parameters_from_toml_and_shows_them(tailor: Tailor, tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    head = DEFINITION.replace('recipe = "lora"\n', 'recipe = "lora"\npromotion = "approval"\non_erasure = "retire"\n')
    file.write_text(head + MEASURED + "\n[judging]\noverlap_share = 0.5\nexperts = 4\ndraw_prompts = false\n")

    specialist = tailor("specialist", "update", str(file), "--output=json").document["specialist"]

    assert (specialist["promotion"], specialist["on_erasure"]) == ("PROMOTION_MODE_APPROVAL", "ON_ERASURE_RETIRE")
    assert specialist["metrics"] == [{"name": "house", "kind": "terms", "parameters_json": '{"at": 2, "terms": ["a"]}'}]
    shown = " ".join(tailor("specialist", "show", "engagement-reports").out.split())
    assert specialist["sampling"]["thinking"] == "THINKING_HIDDEN" and 'thinking = "hidden"' in shown
    assert "temperature = 0.0" in shown and "repetition_penalty = 1.05" in shown
    assert 'name = "house" kind = "terms" at = 2 terms = [ "a", ]' in shown
    assert 'max_rows = 50 few_shot = 3 guidelines = "Be brief."' in shown and 'name = "tone"' in shown
    assert "overlap_share = 0.5" in shown and "experts = 4" in shown and "draw_prompts = false" in shown
    assert "promotion waits for approval; see `tailor adapter approvals`" in shown


@pytest.mark.parametrize("line", ['promotion = "sometimes"', "metrics = [1]", "metrics = 1"])
def test_refuses_a_word_or_metric_that_is_none(tailor: Tailor, tmp_path: Path, line: str) -> None:
    file = tmp_path / "s.toml"
    file.write_text(f'name = "reports"\n{line}\n')

    result = tailor("specialist", "create", str(file))

    assert (result.code != 0, "is not a valid definition" in result.err) == (True, True)


def test_shows_a_definition_that_update_reads_back(tailor: Tailor, services: Services, tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    head = DEFINITION.replace('recipe = "lora"\n', 'recipe = "lora"\npromotion = "approval"\n')
    file.write_text(head + MEASURED)
    tailor("specialist", "update", str(file))
    stored = models_pb2.SpecialistChanged.FromString(services.registry.specialist.SerializeToString())

    shown = tailor("specialist", "show", "engagement-reports", "--toml").out
    file.write_text(shown)

    assert 'promotion = "approval"' in shown and "revision" not in shown
    assert tailor("specialist", "update", str(file)).code == 0
    stored.revision += 1
    assert services.registry.specialist == stored


def test_diff_shows_fields_and_changes_nothing(tailor: Tailor, services: Services, tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text(DEFINITION + "\n[gate]\nmin_rows = 30\n")

    shown = tailor("specialist", "diff", str(file))

    assert "gate.min_rows\t0\t30" in shown.out
    assert "cannot be compared with earlier ones" in shown.out
    assert services.registry.specialist.revision == 1


def test_diff_of_the_same_definition_says_so(tailor: Tailor, tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text(DEFINITION)
    assert tailor("specialist", "diff", str(file)).out == "No field differs.\n"


def test_delete_asks_first(tailor: Tailor, services: Services) -> None:
    asked = tailor("specialist", "delete", "engagement-reports")
    assert asked.code != 0
    assert not services.registry.specialist.deleted


def test_delete_says_what_stays_and_is_idempotent(tailor: Tailor, services: Services) -> None:
    first = tailor("specialist", "delete", "engagement-reports", "--yes", "--reason", "merged into another")
    again = tailor("specialist", "delete", "engagement-reports", "--yes")
    assert "is deleted. Its documents, datasets, adapters and drafts stay" in " ".join(first.out.split())
    assert "was deleted before" in again.out
    assert services.registry.reasons[0] == "merged into another"


def test_moves_a_specialist_to_another_base(tailor: Tailor, services: Services) -> None:
    services.registry.specialist.base = "former"
    moved = tailor("specialist", "move", services.registry.specialist.name, "--base", "tiny")
    assert moved.code == 0, moved.err
    assert services.registry.specialist.base == "tiny"
    assert (len(services.synthetic.built), services.training.created) == (1, [])
    assert "`tailor specialist leaderboard" in moved.out


def test_a_move_to_a_base_with_the_same_rows_creates_the_run(tailor: Tailor, services: Services) -> None:
    services.synthetic.created = False
    moved = tailor("specialist", "move", services.registry.specialist.name, "--base", "tiny", "--output=json")
    (created,) = services.training.created
    assert (created.base, moved.document["run_id"]) == ("tiny", "run_1")


def test_refuses_a_move_to_a_base_that_nothing_serves(tailor: Tailor, services: Services) -> None:
    refused = tailor("specialist", "move", services.registry.specialist.name, "--base", "absent")
    assert refused.code == 1 and "No inference deployment has the base absent" in refused.err
    assert services.synthetic.built == []
