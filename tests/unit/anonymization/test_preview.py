"""A dry run, without a model."""

import pytest

from services.anonymization.domain import NO_LABELS, Action, Anonymized, Change, Labels
from services.anonymization.handlers import preview
from tailor.errors import InvalidArgument
from tests.unit.anonymization.fakes import ShoutingAnonymizer

LABELS = ("wiki", "risk", "internal")


class FakeRehearsal(ShoutingAnonymizer):
    def __init__(self, digest: str) -> None:
        super().__init__()
        self.policy_digest = digest


class FakeStage:
    def __init__(self) -> None:
        self.rehearsals: list[FakeRehearsal] = []

    def rehearse(self, policy: str, text: str) -> FakeRehearsal:
        self.rehearsals.append(FakeRehearsal(policy or "installation"))
        return self.rehearsals[-1]


@pytest.mark.parametrize(("policy", "digest"), [("", "installation"), ("mine", "mine")])
@pytest.mark.parametrize("labels", [NO_LABELS, LABELS])
def test_shows_a_text_under_a_policy_with_the_labels(policy: str, digest: str, labels: Labels) -> None:
    stage = FakeStage()
    change = Change(3, 9, "PERSON", Action.SURROGATE, "Ward")
    expected = Anonymized(("Ms Ward.",), {"PERSON": 1}, ((change,),))
    assert preview(stage, "Ms Okafor.", policy, labels) == (expected, digest)
    assert stage.rehearsals[0].labels == [labels]


def test_names_everything_that_is_too_long() -> None:
    stage = FakeStage()
    with pytest.raises(InvalidArgument) as refused:
        preview(stage, "x" * 200_001, "x" * 65_537, NO_LABELS)
    assert set(refused.value.field_violations) == {"text", "policy"}
    assert stage.rehearsals == []
