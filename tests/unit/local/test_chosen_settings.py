"""The owner's settings of the embedded stack."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from services.anonymization.policy.policy_file import load_policy
from services.anonymization.recognise.lists import TermLists
from services.anonymization.settings import Settings as AnonymizationSettings
from services.ingestion.settings import Settings as IngestionSettings
from services.ingestion.settings import decode_hosts
from tailor.errors import InvalidArgument
from tailor.local.environment import StackPlan, service_environment
from tailor.local.layout import Layout
from tailor.local.ports import Ports
from tailor.local.secrets import ensure
from tailor.runtime import refuse_unknown
from tailor.settings import ServiceSettings

S = TypeVar("S", bound=ServiceSettings)
Read = Callable[[str, type[S], str], S]


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:  # type: ignore[type-arg]
    """Read a service's settings as its process would, from the owner's file."""
    layout = Layout(tmp_path)
    plan = StackPlan(layout, Ports(20000), ensure(layout))

    def read_settings(service: str, settings_type: type[S], text: str) -> S:
        layout.settings_file.write_text(text, encoding="utf-8")
        for name, value in service_environment(service, plan, {}).items():
            monkeypatch.setenv(name, value)
        return settings_type()

    return read_settings


def test_the_owners_settings_reach_only_the_service_they_name(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    plan = StackPlan(layout, Ports(20000), ensure(layout))
    layout.settings_file.write_text('[synthetic]\nteacher_model = "llama"\nmin_train_rows = 9\n', encoding="utf-8")
    environment = service_environment("synthetic", plan, os.environ)
    assert (environment["TAILOR_TEACHER_MODEL"], environment["TAILOR_MIN_TRAIN_ROWS"]) == ("llama", "9")
    assert "TAILOR_TEACHER_MODEL" not in service_environment("training", plan, os.environ)


def test_a_table_of_a_setting_reaches_the_service_as_json(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    plan = StackPlan(layout, Ports(20000), ensure(layout))
    text = '[evaluation]\nexternal_model_keys = {gpt = "sk"}\n[evaluation.external_models.gpt]\nmodel = "m"\n'
    layout.settings_file.write_text(text, encoding="utf-8")
    environment = service_environment("evaluation", plan, os.environ)
    assert json.loads(environment["TAILOR_EXTERNAL_MODELS"]) == {"gpt": {"model": "m"}}
    assert json.loads(environment["TAILOR_EXTERNAL_MODEL_KEYS"]) == {"gpt": "sk"}


def test_a_settings_file_that_is_not_toml_is_refused_by_name(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    plan = StackPlan(layout, Ports(20000), ensure(layout))
    layout.settings_file.write_text("[synthetic", encoding="utf-8")
    with pytest.raises(InvalidArgument, match=r"settings\.toml"):
        service_environment("synthetic", plan, os.environ)


def test_a_policy_and_its_lists_load_from_paths_next_to_the_settings_file(tmp_path: Path, read: Read) -> None:  # type: ignore[type-arg]
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "clients.txt").write_text("Blue River Holdings\n", encoding="utf-8")
    source = 'extends = "gdpr-article-9"\n[deny]\nCLIENT = [{ file = "clients.txt" }]\n'
    (tmp_path / "policy.toml").write_text(source, encoding="utf-8")
    text = '[anonymization]\npolicy_file = "policy.toml"\nlists_dir = "lists"\n'
    settings = read("anonymization", AnonymizationSettings, text)
    assert settings.policy_file == tmp_path / "policy.toml"
    policy = load_policy(settings.policy_file)
    assert policy.actions["NRP"] == "mask"
    assert [
        finding.entity_type for finding in TermLists(settings.lists_dir, policy).search("blue river holdings")[0]
    ] == ["CLIENT"]


def test_an_absolute_path_stays_as_it_is(tmp_path: Path, read: Read) -> None:  # type: ignore[type-arg]
    path = tmp_path / "elsewhere" / "policy.toml"
    settings = read("anonymization", AnonymizationSettings, f'[anonymization]\npolicy_file = "{path}"\n')
    assert settings.policy_file == path


def test_lists_numbers_and_switches_reach_the_service_with_their_types(read: Read) -> None:  # type: ignore[type-arg]
    text = '[anonymization]\nphone_regions = ["GB", "PL"]\nlanguages = ["de"]\nrpc_reflection = true\n'
    settings = read("anonymization", AnonymizationSettings, text)
    assert (settings.phone_regions, settings.languages, settings.rpc_reflection) == (("GB", "PL"), ("de",), True)
    text = '[ingestion]\nkeep_text_days = 30\nfetch_seconds = 2.5\nfetch_hosts = ["files.example.com", "b.example.com:8443"]\n'
    other = read("ingestion", IngestionSettings, text)
    assert (other.keep_text_days, other.fetch_seconds) == (30, 2.5)
    assert decode_hosts(other.fetch_hosts) == [("files.example.com", 443), ("b.example.com", 8443)]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[anonymisation]\nlanguage = 'de'\n", r"unknown table \[anonymisation\]; known tables are ingestion"),
        ("language = 'de'\n", "unknown table"),
        ("ingestion = 3\n", "outside of a table"),
    ],
)
def test_a_table_of_no_service_is_refused_by_name(tmp_path: Path, text: str, problem: str) -> None:
    layout = Layout(tmp_path)
    plan = StackPlan(layout, Ports(20000), ensure(layout))
    layout.settings_file.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidArgument, match=problem):
        service_environment("ingestion", plan, os.environ)


def test_a_setting_that_the_service_does_not_have_ends_it() -> None:
    refuse_unknown(AnonymizationSettings, "languages,policy_file")
    with pytest.raises(SystemExit):
        refuse_unknown(AnonymizationSettings, "polcy_file")
