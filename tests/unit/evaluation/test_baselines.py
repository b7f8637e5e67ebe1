"""Costs of answers, and the settings of baselines."""

from typing import Any

import pytest
from pydantic import ValidationError

from services.evaluation.baselines.costs import HourPrice, PricePerToken, Prices
from services.evaluation.domain import Answer, ModelCost, ModelResult
from services.evaluation.figures import measure_cost
from services.evaluation.settings import Settings
from tailor.api.events.v1 import models_pb2
from tailor.codec import decode, encode


def test_answers_that_were_cut_at_the_maximum_of_tokens_are_counted() -> None:
    answers = (Answer("It ends"), Answer("It goes on and", finished=False), None)
    cost = measure_cost("candidate", ModelResult(answers, (None, None, None)))
    assert (cost.answers, cost.cut_answers) == (2, 1)
    assert decode(ModelCost, encode(models_pb2.ModelCost, cost)) == cost


def test_settings_give_models_prices_and_keys() -> None:
    settings = Settings(
        external_models={"gpt": {"base_url": "https://h/v1", "model": "m", "price_input": 2, "price_output": 8}},
        external_model_keys={"gpt": "sk-secret"},
        inference_price_hour=1.5,
    )
    assert settings.prices == Prices({"external:gpt": PricePerToken(2, 8, "EUR")}, HourPrice(1.5, "EUR"))
    assert "sk-secret" not in repr(settings)


@pytest.mark.parametrize("changes", [{"reflection_model": "gpt"}, {"external_model_keys": {"gpt": "sk-secret"}}])
def test_settings_refuse_a_name_without_an_external_model_and_show_no_key(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="external_models has no gpt") as caught:
        Settings(**changes)
    assert "sk-secret" not in str(caught.value)
