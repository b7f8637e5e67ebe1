"""The scripted callers and experts of `make bench-loop`, over the real registry and inference."""

from collections import Counter
from contextlib import closing
from dataclasses import replace
from itertools import count
from pathlib import Path
from random import Random

import pytest

from bench.loop import choose_prompts
from bench.loop_experts import MAX_ANSWERS, NOISY, PLAIN, open_panel, prefer_plain, rewrite
from bench.loop_figures import measure_panel
from services.registry.domain import JudgingPolicy, KeyTerms
from services.registry.handlers import keys, specialists
from services.registry.rules.agreement import MIN_UNITS
from tailor.api.registry.v1 import panel_pb2
from tailor.cli.connections import Connections, Endpoints
from tests.integration.test_judging_flow import Flow, flow

__all__ = ["flow"]

pytestmark = [pytest.mark.integration, pytest.mark.release]

PROMPTS = 48
# The share of prompts that all three experts judge: enough that the noisy one certainly disagrees somewhere.
OVERLAP_SHARE = 0.8
WORDS = ("a", "to", "due", "bank", "ledger", "control", "evidence", "readiness", "proportionate")


def connect(flow: Flow, folder: Path) -> Connections:
    """The operator's connections to both servers."""
    terms = KeyTerms("operator", "ROLE_OPERATOR", ())
    secret = keys.create_key(flow.registry.begin, terms, lambda _: True, "key_1")[1]
    ports = {"registry": flow.registry.server.port, "inference": flow.inference_port}
    addresses = {service: f"127.0.0.1:{port}" for service, port in ports.items()}
    return Connections(Endpoints(folder, secret, addresses))


def share_prompts(flow: Flow) -> None:
    """Have most prompts judged by all experts."""
    with flow.registry.begin() as tx:
        specialist = tx.specialists.find(name="letters")
    assert specialist is not None
    policy = JudgingPolicy(OVERLAP_SHARE, 3)
    specialists.update_specialist(flow.registry.begin, replace(specialist, judging=policy))


def say(number: int) -> str:
    """Six words of different lengths, and a number that no other answer has."""
    return " ".join(Random(number).choices(WORDS, k=6)) + f" {number}"


def test_two_experts_agree_and_the_noisy_one_is_found_by_what_the_registry_measures(
    flow: Flow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    share_prompts(flow)
    numbers = count()
    monkeypatch.setattr(flow.engine, "text", lambda adapter: say(next(numbers)))
    said: list[str] = []
    with closing(connect(flow, tmp_path)) as connections, open_panel(connections, "letters", seed=2) as panel:
        assert panel.ask(choose_prompts(1, PROMPTS), said.append) == PROMPTS
        decisions = panel.judge(said.append)
        response = connections.panel.GetAgreement(panel_pb2.GetAgreementRequest(specialist="letters"))
        figures = measure_panel(response, {item.expert_id: item.name for item in panel.experts}, decisions)
        assert not panel.judge(said.append)
        texts = {key: panel.experts[0].client.draft(key).answer for item in decisions for key in item.drafts}
        edits = [panel.experts[0].client.draft(key).answer for key in panel.edits]
    assert figures.judgements == len(decisions) == len(panel.decisions)
    judged = Counter(item.drafts for item in decisions)
    assert len(judged) == PROMPTS and set(judged.values()) == {1, 3}
    assert figures.units == sum(experts == 3 for experts in judged.values()) >= MIN_UNITS
    assert figures.alpha == pytest.approx(figures.independent_alpha, abs=1e-12)
    assert figures.noisy_expert == NOISY
    assert {name: figures.experts[name].value for name in PLAIN} == dict.fromkeys(PLAIN, 1.0)
    for item in decisions:
        if item.expert in PLAIN:
            first, second = item.drafts
            assert item.better == item.drafts[prefer_plain(texts[first], texts[second])]
    edited = [item.better for item in decisions if item.expert == PLAIN[0]]
    assert edited and edits == [rewrite(panel.prompts[draft]) for draft in edited]


def test_a_prompt_whose_answers_are_alike_gives_no_pair(flow: Flow, tmp_path: Path) -> None:
    flow.engine.say = "Always the same."
    said: list[str] = []
    with closing(connect(flow, tmp_path)) as connections, open_panel(connections, "letters", seed=2) as panel:
        assert panel.ask(["Advise on the only case."], said.append) == 0
        assert panel.judge(said.append) == []
    assert len(flow.engine.streams) == MAX_ANSWERS
