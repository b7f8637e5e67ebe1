"""How suites ask."""

import pytest

from services.evaluation.domain import BASE, CANDIDATE
from services.evaluation.served_models import AdapterModel, BaseModel
from services.evaluation.suites.runner import ModelAsker
from tailor.storage.ref import Ref
from tailor.values import SamplingDefaults, Thinking
from tests.unit.evaluation.fakes import FakeModels


@pytest.mark.parametrize(
    ("thinking", "most", "asked"),
    [(Thinking.OFF, 100, 24), (Thinking.OFF, 0, 24), (Thinking.HIDDEN, 100, 124), (Thinking.SHOWN, 0, 0)],
)
def test_base_and_candidate_think_as_for_callers_and_an_items_limit_is_that_of_its_answer(
    thinking: Thinking, most: int, asked: int
) -> None:
    models = FakeModels()
    candidate = AdapterModel(models, CANDIDATE, "ad0", Ref("s3://models/a/manifest.json", "ad0", 1))
    candidate.prepare()
    sampling = SamplingDefaults(temperature=0.5, max_tokens=most, thinking=thinking)
    asker = ModelAsker({BASE: BaseModel(models, "tiny"), CANDIDATE: candidate}, sampling, concurrency=1)
    for model in (BASE, CANDIDATE):
        asker.answer(model, [(("user", "Report 7."),)], 24)
    assert models.samplings == [SamplingDefaults(temperature=0.5, max_tokens=asked, thinking=thinking)] * 2
