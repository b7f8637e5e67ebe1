"""Evaluation asks a candidate exactly as callers of its specialist will."""

from dataclasses import asdict

import pytest

from services.evaluation.adapters.inference import RemoteModels
from tailor import values
from tailor.client import TailorClient
from tailor.rpc.channel import open_channel
from tests.unit.inference.fakes import adapter, apply_serving, served
from tests.unit.inference.test_rpc import RunningServer, opened, running

__all__ = ["opened", "running"]

SAMPLING = (
    values.SamplingDefaults(),
    values.SamplingDefaults(repetition_penalty=1.05, max_tokens=9),
    values.SamplingDefaults(thinking=values.Thinking.HIDDEN),
    values.SamplingDefaults(temperature=0.7, top_p=0.95, repetition_penalty=1.1, max_tokens=4),
)


@pytest.mark.parametrize("sampling", SAMPLING)
def test_the_same_request_gives_the_same_answer_in_evaluation_and_serving(
    opened: RunningServer,
    sampling: values.SamplingDefaults,
) -> None:
    world, address = opened.world, f"127.0.0.1:{opened.server.port}"
    apply_serving(world, served("memos", 1, "a", system_prompt="House style."))
    world.models.table.add_candidate(adapter("a"))
    world.inference.definitions.define("memos", sampling=sampling)
    evaluation = RemoteModels(open_channel(address, lambda: "evaluation"))

    with TailorClient(address, "tlr_secret") as client:
        called = client.generate("memos", "Write it.")
    row = (("system", "House style."), ("user", "Write it."))
    measured = evaluation.generate("adapter:a", row, sampling)

    first, second = world.engine.streams
    drawn = asdict(second.sampling) | {"seed": None}
    assert (asdict(first.sampling), first.adapter) == (drawn, second.adapter)
    assert world.engine.encoded[0] == world.engine.encoded[1]
    assert (measured.text, measured.tokens) == (called.text, called.usage.completion_tokens)
    # A drawn answer is repeatable only in evaluation.
    assert (second.sampling.seed is not None) == (sampling.temperature > 0)
