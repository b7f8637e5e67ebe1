"""The page of one specialist: counts, where its flow waits and why, and links."""

import re
from html import unescape

import pytest

from services.console.domain import Role
from tailor.api.events.v1 import drafts_pb2, models_pb2
from tailor.api.registry.v1 import registry_pb2
from tests.unit.console.messages import (
    ADAPTER,
    DATASET,
    NAME,
    OLD_ADAPTER,
    PREFERENCES,
    RUN,
    adapter,
    dataset,
    edit,
    run,
    specialist,
    staged,
    trained,
)
from tests.unit.console.world import World

PATH = f"/specialists/{NAME}"
STEPS = ["documents", "dataset", "run", "evaluation and gate", "serving", "judgements"]


def read_steps(world: World, role: Role = Role.OPERATOR) -> dict[str, dict[str, str]]:
    """The steps of the page by name: state, value, and the rest as one text."""
    text = world.signed_in(role).get(PATH).text.partition('<ol class="steps">')[2].partition("</ol>")[0]
    steps = {}
    for state, part in re.findall(r'<li class="step-card (\w+)">(.*?)</li>', text, re.S):
        name, value = (re.findall(pattern, part)[0] for pattern in (r"<h2>(.*?)</h2>", r'step-value">(.*?)</p>'))
        words = " ".join(unescape(re.sub(r"<[^>]+>", " ", part)).split())
        steps[name] = {
            "state": state,
            "value": value,
            "text": words,
            "links": " ".join(re.findall(r'href="(.*?)"', part)),
        }
    return steps


def test_the_steps_are_in_the_order_of_the_flow_with_counts_and_links() -> None:
    world = World()
    world.registry.specialists = [specialist(keep_drafts=True)]
    steps = read_steps(world)
    assert list(steps) == STEPS
    values = {name: step["value"] for name, step in steps.items()}
    assert values["documents"] == "2" and values["dataset"] == "480 rows" and values["run"] == "running"
    assert values["evaluation and gate"] == "passed" and values["serving"] == "b" * 10
    for name, link in (
        ("documents", f"/documents?specialist={NAME}"),
        ("dataset", f"/datasets/{DATASET}#rows"),
        ("run", f"/runs/{RUN}"),
        ("evaluation and gate", f"/evaluations/{ADAPTER}"),
        ("serving", f"/ask?specialist={NAME}"),
        ("judgements", f"/judge?specialist={NAME}"),
    ):
        assert link in steps[name]["links"].split(), name


@pytest.mark.parametrize("stores", [True, False])
def test_every_link_of_the_flow_leads_to_a_page(stores: bool) -> None:
    world = World()
    world.registry.specialists = [specialist(keep_drafts=stores)]
    world.registry.adapters.append(adapter(trained(OLD_ADAPTER)))
    browser = world.signed_in()
    links = {link.partition("#")[0] for step in read_steps(world).values() for link in step["links"].split()}
    for link in links:
        assert browser.get(link).status_code == 200, link


def test_it_says_what_the_next_dataset_waits_for() -> None:
    assert "7 new documents; a build needs 20: 13 to go." in read_steps(World())["documents"]["text"]


def test_a_dataset_from_which_no_run_learned_waits() -> None:
    world = World()
    assert read_steps(world)["dataset"]["state"] == "done"
    world.registry.datasets = [dataset(digest="f" * 64), dataset()]
    step = read_steps(world)["dataset"]
    assert step["state"] == "busy" and "No run has learned" in step["text"]


def test_a_queued_run_names_its_place_among_all_specialists() -> None:
    world = World()
    world.training.runs = [
        staged(specialist="memos", run_id="run_other", priority=9),
        staged(preference_dataset_digest=PREFERENCES),
    ]
    step = read_steps(world)["run"]
    assert "Place 2 of 2 in the queue. Waits for one of 1 places." in step["text"]
    assert (step["value"], step["state"]) == ("queued", "busy")
    assert "stage 2 of 3 (reward)" in step["text"] and "run_other" not in step["text"]


def test_a_failed_run_and_a_refused_adapter_say_why() -> None:
    world = World()
    world.training.runs = [run("failed", reason="OUT_OF_MEMORY", message="The GPU ran out of memory.")]
    world.registry.adapters = [adapter(state=registry_pb2.ADAPTER_STATE_REFUSED, reasons=["rougeL gains too little"])]
    steps = read_steps(world)
    assert (steps["run"]["state"], steps["evaluation and gate"]["state"]) == ("bad", "bad")
    assert "The GPU ran out of memory." in steps["run"]["text"]
    assert "The gate refused it" in steps["evaluation and gate"]["text"]
    assert "rougeL gains too little" in steps["evaluation and gate"]["text"]


def test_an_adapter_that_waits_for_approval_leads_to_it() -> None:
    world = World()
    world.registry.adapters = [adapter(state=registry_pb2.ADAPTER_STATE_WAITING_FOR_APPROVAL)]
    step = read_steps(world)["evaluation and gate"]
    assert "Waits for an operator's approval." in step["text"] and f"/approvals?specialist={NAME}" in step["links"]


def test_judgements_show_what_the_next_round_lacks() -> None:
    world = World()
    assert "are not stored" in read_steps(world)["judgements"]["text"]
    progress = drafts_pb2.RoundProgress(prompts=9, needed_prompts=32, missing_prompts=23, sentence="9 pairs; 23 to go.")
    world.registry.specialists = [edit(specialist(keep_drafts=True), round=progress)]
    step = read_steps(world)["judgements"]
    assert step["value"] == "9" and "of 32 ranked prompts" in step["text"] and "9 pairs; 23 to go." in step["text"]


def test_a_specialist_at_its_beginning_waits_everywhere() -> None:
    world = World()
    world.registry.specialists = [specialist(generation=0)]
    world.registry.documents, world.registry.datasets, world.registry.adapters = [], [], []
    world.training.runs = []
    steps = read_steps(world)
    assert {step["state"] for step in steps.values()} == {"idle"}
    assert "Waits for a dataset." in steps["run"]["text"]
    assert "Waits for an adapter." in steps["evaluation and gate"]["text"]


def test_a_silent_service_makes_its_steps_unknown_and_no_others() -> None:
    world = World()
    world.training.down = world.synthetic.down = True
    browser = world.signed_in()
    text = browser.get(PATH).text
    assert "No answer from training." in text and "No answer from synthetic." in text
    steps = read_steps(world)
    assert {name for name, step in steps.items() if step["value"] == "–"} == {"documents", "run", "judgements"}
    assert "training does not answer" in steps["run"]["text"]


def test_an_expert_sees_what_serves_and_the_judgements() -> None:
    assert list(read_steps(World(), Role.EXPERT)) == ["serving", "judgements"]


@pytest.mark.parametrize("name", ["never-created", "secret-deals"])
def test_other_specialists_are_not_found(name: str) -> None:
    world = World()
    world.registry.specialists.append(specialist("secret-deals"))
    assert world.signed_in(Role.ENGINEER, NAME).get(f"/specialists/{name}").status_code == 404


def test_reward_adapters_are_no_candidates() -> None:
    world = World()
    reward = adapter(state=registry_pb2.ADAPTER_STATE_REWARD)
    reward.adapter.kind = models_pb2.ADAPTER_KIND_REWARD
    world.registry.adapters = [reward]
    assert read_steps(world)["evaluation and gate"]["value"] == "none yet"
