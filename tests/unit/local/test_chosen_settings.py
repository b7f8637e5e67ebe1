"""The owner's settings of the embedded stack."""

import json
import os
from pathlib import Path

import pytest

from tailor.errors import InvalidArgument
from tailor.local.environment import Plan, service_environment
from tailor.local.layout import Layout
from tailor.local.ports import Ports
from tailor.local.secrets import ensure


def test_the_owners_settings_reach_only_the_service_they_name(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    plan = Plan(layout, Ports(20000), ensure(layout))
    layout.settings_file.write_text('[synthetic]\nteacher_model = "llama"\nmin_train_rows = 9\n', encoding="utf-8")
    environment = service_environment("synthetic", plan, os.environ)
    assert (environment["TAILOR_TEACHER_MODEL"], environment["TAILOR_MIN_TRAIN_ROWS"]) == ("llama", "9")
    assert "TAILOR_TEACHER_MODEL" not in service_environment("training", plan, os.environ)


def test_a_table_of_a_setting_reaches_the_service_as_json(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    plan = Plan(layout, Ports(20000), ensure(layout))
    text = '[evaluation]\nexternal_model_keys = {gpt = "sk"}\n[evaluation.external_models.gpt]\nmodel = "m"\n'
    layout.settings_file.write_text(text, encoding="utf-8")
    environment = service_environment("evaluation", plan, os.environ)
    assert json.loads(environment["TAILOR_EXTERNAL_MODELS"]) == {"gpt": {"model": "m"}}
    assert json.loads(environment["TAILOR_EXTERNAL_MODEL_KEYS"]) == {"gpt": "sk"}


def test_a_settings_file_that_is_not_toml_is_refused_by_name(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    plan = Plan(layout, Ports(20000), ensure(layout))
    layout.settings_file.write_text("[synthetic", encoding="utf-8")
    with pytest.raises(InvalidArgument, match=r"settings\.toml"):
        service_environment("synthetic", plan, os.environ)
