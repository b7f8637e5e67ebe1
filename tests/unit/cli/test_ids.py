"""Every command takes an id by its first digits, and names the candidates if several begin so."""

from collections.abc import Iterable
from typing import Any

import pytest
from typer.main import get_command

from tailor.cli import ids
from tailor.cli.ids import RUNS, IdKind, complete
from tailor.cli.main import app
from tailor.errors import InvalidArgument, NotFound, Reason
from tests.unit.cli.conftest import Services, Tailor

RUN = f"run_cf7774{'0' * 26}"
TWIN = f"run_cf7774{'1' * 26}"
OTHER = f"run_ab0000{'2' * 26}"

KINDS = [kind for kind in vars(ids).values() if isinstance(kind, IdKind)]
# An argument or option whose name is one of these is an id; what Kafka's positions and publishers' own ids are is not.
ID_NAMES = {
    "run_id",
    "synthesis_id",
    "row_id",
    "key",
    "person",
    "replay_id",
    "erasure",
    "passage",
    "draft",
}
ID_NAMES |= {"draft_id"}


def listed(start: str) -> Iterable[str]:
    return [RUN, TWIN, OTHER, "key_cf7774"]


def unlisted(start: str) -> Iterable[str]:
    raise AssertionError(start)


@pytest.mark.parametrize("text", ["run_ab0000", "ab0000", "run_ab", "ab", OTHER.removeprefix("run_")])
def test_first_digits_complete_an_id_with_or_without_its_prefix(text: str) -> None:
    assert complete(RUNS, text, listed) == OTHER


@pytest.mark.parametrize("text", ["", RUN, "a memo.md", "syn_ab0000", "run_nonsense"])
def test_whole_ids_and_other_texts_are_not_looked_up(text: str) -> None:
    assert complete(RUNS, text, unlisted) == text


def test_several_candidates_are_named() -> None:
    with pytest.raises(InvalidArgument, match=f"{RUN}, {TWIN}. Give more digits") as raised:
        complete(RUNS, "cf7774", listed)
    assert raised.value.reason == Reason.AMBIGUOUS_ID


def test_an_id_that_other_ids_begin_with_is_itself() -> None:
    assert complete(RUNS, "run_1", lambda start: ["run_1", "run_12"]) == "run_1"


def test_unknown_digits_say_what_lists_the_ids() -> None:
    with pytest.raises(NotFound, match=r"No run has an id that begins with run_00\. `tailor run list` lists them"):
        complete(RUNS, "00", listed)


def test_a_run_is_cancelled_by_its_first_digits(tailor: Tailor, services: Services) -> None:
    services.training.run_ids = [RUN, OTHER]

    cancelled = tailor("run", "cancel", "cf7774")

    assert cancelled.code == 0
    assert services.training.cancelled == [RUN]


def test_an_ambiguous_run_is_not_cancelled(tailor: Tailor, services: Services) -> None:
    services.training.run_ids = [RUN, TWIN]

    refused = tailor("run", "cancel", "run_cf7")

    assert refused.code == 1
    assert refused.err == f"error: AMBIGUOUS_ID: Several ids begin with run_cf7: {RUN}, {TWIN}. Give more digits.\n"
    assert services.training.cancelled == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.noun)
def test_the_command_that_lists_a_kind_exists(kind: IdKind, tailor: Tailor) -> None:
    words = [word for word in kind.lists.split()[1:] if not word.isupper()]
    assert tailor(*words, "--help").code == 0


def parameters(command: Any, path: str) -> Iterable[tuple[str, Any]]:
    for name, inner in getattr(command, "commands", {}).items():
        yield from parameters(inner, f"{path} {name}")
    for parameter in command.params:
        yield f"{path} {parameter.name}", parameter


def test_every_argument_that_takes_an_id_takes_its_first_digits() -> None:
    callbacks = {
        path: parameter.callback
        for path, parameter in parameters(get_command(app), "tailor")
        if parameter.name in ID_NAMES and path != "tailor subject export person"  # a name
    }
    # The registry completes the digits of a draft that is traced.
    assert [path for path, callback in callbacks.items() if callback is None] == ["tailor trace draft"]
    assert len(callbacks) >= 18
