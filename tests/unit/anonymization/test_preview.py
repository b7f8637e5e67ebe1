"""The dry run, without a model."""

import pytest

from services.anonymization.domain import NO_LABELS, Anonymized
from services.anonymization.handlers import preview_text
from services.anonymization.ports import Previewer
from tailor.errors import InvalidArgument
from tailor.values import Labels
from tests.unit.anonymization.fakes import OneNameAnonymizer


class FakePreviewer(Previewer):
    def __init__(self) -> None:
        self.calls: list[tuple[str, str, Labels]] = []

    def preview(self, text: str, policy: str, labels: Labels) -> Anonymized:
        self.calls.append((text, policy, labels))
        return OneNameAnonymizer().anonymize((text,), labels)


@pytest.mark.parametrize("policy", ["", "mine"])
@pytest.mark.parametrize("labels", [NO_LABELS, Labels("wiki", "risk", "internal")])
def test_shows_a_text_under_a_policy_with_the_labels(policy: str, labels: Labels) -> None:
    previewer = FakePreviewer()
    assert preview_text(previewer, "Ms Okafor.", policy, labels).texts == ("Ms Ward.",)
    assert previewer.calls == [("Ms Okafor.", policy, labels)]


def test_names_everything_that_is_too_long() -> None:
    previewer = FakePreviewer()
    with pytest.raises(InvalidArgument) as refused:
        preview_text(previewer, "x" * 200_001, "x" * 65_537, NO_LABELS)
    assert set(refused.value.field_violations) == {"text", "policy"}
    assert previewer.calls == []
