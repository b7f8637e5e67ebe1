"""Columns: how values are read, shown and ordered, for the command line and the console."""

from typing import Any

import pytest

from tailor import list_columns as lists
from tailor.api.events.v1.models_pb2 import DATASET_KIND_SFT, DatasetBuilt
from tailor.api.registry.v1.registry_pb2 import CatalogueDocument, Key, ListDatasetsRequest
from tailor.api.training.v1.training_pb2 import RUN_STATE_RUNNING, Run
from tailor.columns import Columns, columns, list_names, list_values, number

DIGEST = "ab" * 32


def run() -> Run:
    item = Run(run_id="run_1", dataset_digest=DIGEST, state=RUN_STATE_RUNNING, message="a")
    item.progress.step = 7
    item.approve_time.FromSeconds(1_800_000_000)
    return item


def show(shown: Columns, item: Any) -> list[str]:
    return [str(column.cell(item)) for column in shown]


def test_a_field_is_shown_by_its_type_and_an_absent_one_is_empty() -> None:
    shown = columns(Run, "run=run_id, dataset=dataset_digest, state, stage=progress.step, approved=approve_time")
    assert show(shown, run()) == ["run_1", DIGEST, "running", "7", "2027-01-15 08:00:00"]
    assert show(shown, Run(state=99)) == ["", "", "unknown 99", "", ""]  # type: ignore[arg-type]


def test_the_first_of_several_choices_is_shown_and_others_stand_for_it() -> None:
    shown = columns(
        Key, "specialists=specialists or 'all', calls=calls_per_minute or 'no limit', expires=expire_time or 'never'"
    )
    assert show(shown, Key(specialists=["a", "b"], calls_per_minute=3)) == ["a, b", "3", "never"]
    assert show(shown, Key()) == ["all", "no limit", "never"]
    document = CatalogueDocument()
    document.rejected.document_id = "doc_1"
    assert show(lists.DOCUMENTS.pick("document, version"), document) == ["doc_1", ""]


def test_a_template_shows_a_value_and_nothing_for_an_absent_one() -> None:
    shown = columns(Run, "step=progress.step|{:,} steps, recipe|words")
    assert show(shown, Run(recipe="few_rows")) == ["", "few rows"]
    assert show(shown, run())[0] == "7 steps"


def test_rows_are_read_by_their_places() -> None:
    shown = columns(None, "name=0, run=1.run_id, step=1.progress.step|{:.1f}", ("twice", lambda row: 2 * row[0]))
    assert show(shown, ("x", run())) == ["x", "run_1", "7.0", "xx"]


def test_a_column_has_the_name_by_which_its_list_is_ordered() -> None:
    step, approved, name = columns(
        Run, number("last step", lambda item: item.progress.step), "approved=approve_time, run=run_id"
    )
    assert [column.order for column in (step, approved, name)] == ["last_step", "approve_time", "run_id"]
    assert (step.is_number, approved.is_time, name.is_number) == (True, True, False)


def test_the_listed_values_of_a_message_are_those_that_its_contract_names() -> None:
    message = DatasetBuilt(digest="AB12", specialist="a\0b", kind=DATASET_KIND_SFT, train_rows=7)
    message.create_time.FromSeconds(1_800_000_000)
    values = list_values(ListDatasetsRequest, message, pipeline="sft")
    names = list_names(ListDatasetsRequest)
    assert {*values["listed"]} == {*names.order_by.split(), *names.filters.split()}
    assert (values["listed"]["train_rows"], values["listed"]["kind"], values["listed"]["digest"]) == (7, "sft", "ab12")
    assert values["listed"]["create_time"] == "2027-01-15t08:00:00.000000"
    assert values["searched"] == "AB12 ab  sft"


@pytest.mark.parametrize("specification", ["nothing", "step=progress.nothing"])
def test_a_field_that_a_message_does_not_have_is_refused_when_the_list_is_defined(specification: str) -> None:
    with pytest.raises(KeyError):
        columns(Run, specification)


def test_a_column_that_a_list_does_not_have_cannot_be_picked() -> None:
    with pytest.raises(KeyError):
        lists.RUNS.pick("run, colour")
