"""People who sign in, and people and documents that are erased."""

import pytest

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


WHOLE = f"doc_{'7' * 32}"


def test_erases_documents_and_names_the_services_that_have_not_confirmed(tailor: Tailor, services: Services) -> None:
    erased = tailor("erasure", "create", "--document", "doc_1", "--document", WHOLE)
    assert erased.code == 0
    (request,) = services.registry.erasures
    assert (list(request.document_ids), request.reason) == (["doc_1", WHOLE], "document-request")
    assert "waiting for inference, training" in erased.out


def test_erases_at_most_1000_documents_per_call(tailor: Tailor, services: Services) -> None:
    documents = [part for number in range(1001) for part in ("--document", f"doc_{number:032x}")]
    assert tailor("erasure", "create", *documents).code == 0
    assert [len(request.document_ids) for request in services.registry.erasures] == [1000, 1]


def test_sends_a_person_only_to_anonymization(tailor: Tailor, services: Services) -> None:
    erased = tailor("erasure", "create", "--subject", "Sarah Jenkins", "--output=json")
    (request,) = services.registry.erasures
    assert (list(request.document_ids), request.reason) == (["doc_1", "doc_2", "txt_1"], "subject-request")
    assert services.anonymization.resolved == [False]
    assert "Jenkins" not in erased.out + erased.err + str(request)
    assert erased.document["erasures"][0]["erasure_id"] == "ers_1"


def test_suppresses_a_person_who_is_in_no_document(tailor: Tailor, services: Services) -> None:
    erased = tailor("erasure", "create", "--subject", "Nobody Known")
    assert erased.code == 0 and not services.registry.erasures
    assert services.anonymization.resolved == [False]


def test_a_dry_run_erases_nothing(tailor: Tailor, services: Services) -> None:
    shown = tailor("erasure", "create", "--subject", "Sarah Jenkins", "--dry-run")
    assert shown.out.split() == ["doc_1", "doc_2", "txt_1"]
    assert "2 documents, 1 imported rows and examples of syntheses" in shown.err
    assert services.anonymization.resolved == [True] and not services.registry.erasures


@pytest.mark.parametrize(("name", "lifted"), [(WHOLE, [WHOLE]), ("doc_1", ["doc_1"]), ("ers_1", ["doc_1", "doc_2"])])
def test_lifts_an_erasure_whole_or_for_one_document(
    tailor: Tailor, services: Services, name: str, lifted: list[str]
) -> None:
    assert tailor("erasure", "lift", name).code == 0
    assert services.registry.lifted == lifted


def test_lifts_a_persons_suppression_only_in_anonymization(tailor: Tailor, services: Services) -> None:
    lifted = tailor("erasure", "lift", "--subject", "Sarah Jenkins")
    assert lifted.code == 0 and services.anonymization.lifted == ["Sarah Jenkins"]
    assert not services.registry.lifted and "Jenkins" not in lifted.out + lifted.err


@pytest.mark.parametrize("arguments", [(), ("--document", "doc_1", "--subject", "Sarah Jenkins")])
def test_needs_exactly_one_thing_to_erase(tailor: Tailor, services: Services, arguments: tuple[str, ...]) -> None:
    refused = tailor("erasure", "create", *arguments)
    assert refused.code == 1 and "NOTHING_NAMED" in refused.err
    assert not services.registry.erasures and not services.anonymization.resolved


def test_lists_erasures_and_shows_one_with_its_receipt(tailor: Tailor, services: Services) -> None:
    assert "waiting for inference, training" in tailor("erasure", "list").out
    services.registry.receipt = '{"erasure_id": "ers_1"}'
    assert "receipt signed" in tailor("erasure", "list").out
    shown = tailor("erasure", "show", "ers_1")
    assert '{"erasure_id": "ers_1"}' in shown.out and "0102" in shown.out


def test_a_key_without_the_role_is_told_which_role_erases_and_how_to_get_a_key(
    tailor: Tailor, services: Services
) -> None:
    services.registry.role_is_admitted = False
    refused = tailor("erasure", "create", "--document", "doc_1")
    assert refused.code == 1 and refused.err.startswith("error: ROLE_NOT_ADMITTED: Erase needs a key with the role")
    # An operator may not give the role: the key exists already.
    assert "An operator creates" not in refused.err and "`protection.key`" in refused.err
    assert "tailor key create NAME --role data-protection" in refused.err
