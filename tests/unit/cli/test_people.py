"""Who may sign in to the console."""

from tailor.api.common.v1 import common_pb2
from tests.unit.cli.conftest import Services, Tailor

PERSON = "per_0000000000000001"


def test_invites_lists_and_removes_people(tailor: Tailor, services: Services) -> None:
    invited = tailor("person", "invite", "Ada Example", "--specialist", "memos", "--days", "3")
    assert all(text in invited.out for text in (PERSON, "2026-12-24 18:00", "tli_code"))
    request = services.people.requests[0]
    assert (request.name, request.role, list(request.specialists)) == ("Ada Example", common_pb2.ROLE_EXPERT, ["memos"])
    assert (request.mail, request.days) == ("", 3)
    listed = tailor("person", "list").out
    assert (
        all(text in listed for text in ("Ada Example", "memos", "expert", "invited", "key_1")) and "tli_" not in listed
    )
    assert "is removed" in tailor("person", "remove", PERSON).out
    assert tailor("--output=json", "person", "list").document["people"][0]["state"] == "PERSON_STATE_REMOVED"
    assert "UNKNOWN_PERSON" in tailor("person", "remove", "per_none").err


def test_a_person_with_a_mail_address_gets_no_code(tailor: Tailor, services: Services) -> None:
    shown = tailor("person", "invite", "Ada", "--mail", "ada@example.com", "--role", "operator").out
    assert "OpenID provider" in shown and "code" not in shown
    assert (services.people.requests[0].mail, services.people.requests[0].days) == ("ada@example.com", 7)
    assert services.people.requests[0].role == common_pb2.ROLE_OPERATOR


def test_invites_a_person_again(tailor: Tailor, services: Services) -> None:
    tailor("person", "invite", "Ada")
    assert "tli_again" in tailor("person", "renew", PERSON, "--days", "1").out
    assert services.people.requests[-1].days == 1


def test_an_invitation_lasts_at_most_30_days(tailor: Tailor, services: Services) -> None:
    assert tailor("person", "invite", "Ada", "--days", "31").code != 0
    assert not services.people.requests
