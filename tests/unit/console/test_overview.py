"""The Flow page: documents of the whole installation, then the later stages of one specialist."""

import pytest

from services.console.domain import Role
from tailor.api.registry.v1 import registry_pb2
from tests.unit.console.messages import NAME, OLD_ADAPTER, adapter, specialist, trained
from tests.unit.console.world import World


def test_flow_counts_every_submission_once() -> None:
    world = World()
    world.registry.flow = registry_pb2.GetFlowResponse(
        ingested=10, anonymized=7, rejected={"DUPLICATE": 3, "UNREADABLE": 1}, findings={"PERSON": 12}
    )
    board = world.signed_in().get("/api/flow").json()
    stages = {stage["name"]: stage for stage in board["stages"]}
    assert [stages[name]["value"] for name in ("submitted", "ingested", "anonymised", "rows")] == [
        "13",
        "10",
        "7",
        "480",
    ]
    assert stages["submitted"]["note"] == "2 in progress"
    assert board["rejected_total"] == "4"
    assert board["findings"] == [{"name": "person", "count": "12", "share": 100}]


def test_flow_shows_run_gate_and_what_serves() -> None:
    stages = {stage["name"]: stage for stage in World().signed_in().get("/api/flow").json()["stages"]}
    assert (stages["run"]["value"], stages["run"]["state"]) == ("33 %", "busy")
    assert (stages["evaluation"]["value"], stages["evaluation"]["state"]) == ("passed", "done")
    assert (stages["serving"]["value"], stages["serving"]["note"]) == ("bbbbbbbbbb", "generation 1")


def make_two_specialists() -> World:
    """One with rows and a run only, and one, earlier by name, of which only an adapter serves."""
    world = World()
    world.registry.specialists = [specialist("board-minutes"), specialist(generation=0)]
    world.registry.adapters = [adapter(trained(OLD_ADAPTER, specialist="board-minutes"))]
    return world


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("/api/flow", ["0", "–", "passed", "bbbbbbbbbb"]),
        ("/api/flow?specialist=board-minutes", ["0", "–", "passed", "bbbbbbbbbb"]),
        (f"/api/flow?specialist={NAME}", ["480", "33 %", "–", "–"]),
    ],
)
def test_flow_shows_one_specialist_at_a_time(path: str, values: list[str]) -> None:
    board = make_two_specialists().signed_in().get(path).json()
    assert [stage["value"] for stage in board["stages"][3:]] == values
    assert board["specialist"] == (NAME if NAME in path else "board-minutes")


def test_flow_offers_the_visitors_specialists_and_follows_the_chosen_one() -> None:
    world = make_two_specialists()
    text = world.signed_in().get(f"/flow?specialist={NAME}").text
    assert f"<option>board-minutes</option><option selected>{NAME}</option>" in text
    assert f'data-specialist="{NAME}"' in text
    limited = world.signed_in(Role.ENGINEER, NAME)
    assert "board-minutes" not in limited.get("/flow").text
    assert limited.get("/flow?specialist=board-minutes").status_code == 404


def test_flow_is_idle_before_anything_happened() -> None:
    world = World()
    world.registry.flow = registry_pb2.GetFlowResponse()
    world.registry.datasets, world.registry.adapters, world.registry.specialists = [], [], []
    world.training.runs = []
    stages = world.signed_in().get("/api/flow").json()["stages"]
    assert {stage["state"] for stage in stages} == {"idle"}
