"""Inviting people on the page, accepting invitations, and signing in with a secret of one's own."""

import pytest
from fastapi.testclient import TestClient

from services.console.domain import InvitationTerms, Role
from services.console.web.sessions import COOKIE
from tailor.errors import InvalidArgument
from tests.unit.console.messages import KEY, NAME
from tests.unit.console.world import World, csrf, sign_in

FORM: dict[str, str | list[str]] = {"name": " Ada Example ", "role": "expert"}


def accept(browser: TestClient, code: str) -> tuple[int, str]:
    """Status and text of the answer to an invitation's code."""
    answer = browser.post("/invitation", data={"code": code, "csrf": csrf(browser, "/invitation")})
    return answer.status_code, answer.text


def join(world: World, role: Role = Role.EXPERT, *specialists: str) -> tuple[str, str]:
    """A person who accepted an invitation: id and secret."""
    invitation = world.people.invite(InvitationTerms("Ada Example", role, specialists=specialists), KEY)
    assert accept(world.browser(), invitation.code)[0] == 200
    return invitation.person.person_id, f"tlp_of_{invitation.person.person_id}"


def test_an_operator_invites_and_the_person_signs_in_with_their_own_secret(capsys: pytest.CaptureFixture[str]) -> None:
    world = World()
    operator = world.signed_in()
    answer = operator.post("/people", data=FORM | {"specialists": [NAME], "days": "3"})
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert world.people.invited == [(InvitationTerms("Ada Example", Role.EXPERT, "", (NAME,), 3), KEY)]
    code = f"tli_0_of_{world.people.people[0].person_id}"
    assert f"http://testserver/invitation#{code}" in answer.text
    assert code not in operator.get("/people").text
    browser = world.browser()
    status, text = accept(browser, code)
    secret = f"tlp_of_{world.people.people[0].person_id}"
    assert (status, secret in text) == (200, True)
    sign_in(browser, secret)
    page = browser.get("/ask").text
    assert "Ada Example" in page and "expert" in page
    logs = "".join(capsys.readouterr())
    assert "invitation accepted" in logs
    for hidden in (code, secret, "Ada"):
        assert hidden not in logs


def test_an_invitation_works_once_and_guesses_are_limited() -> None:
    world = World()
    invitation = world.people.invite(InvitationTerms("Ada", Role.EXPERT), KEY)
    assert accept(world.browser(), invitation.code)[0] == 200
    browser = world.browser()
    answers = [accept(browser, code) for code in (invitation.code, *(f"tli_guess_{number}" for number in range(6)))]
    assert [status for status, _ in answers] == [401] * 6 + [429]
    assert "UNKNOWN_INVITATION" in answers[0][1]


def test_an_invitation_without_the_csrf_token_is_refused() -> None:
    world = World()
    invitation = world.people.invite(InvitationTerms("Ada", Role.EXPERT), KEY)
    browser = world.browser()
    assert browser.post("/invitation", data={"code": invitation.code, "csrf": "guess"}).status_code == 403
    assert world.people.codes


def test_a_secret_does_not_sign_in_as_a_key_and_the_other_way_round() -> None:
    world = World()
    _, secret = join(world)
    browser = world.browser()
    for wrong in (secret.replace("tlp_", "tlr_"), world.key(Role.EXPERT).replace("tlr_", "tlp_"), "tlp_", "tli_x"):
        assert browser.post("/login", data={"secret": wrong, "csrf": csrf(browser)}).status_code == 401


def test_a_person_keeps_one_id_in_judgements_and_commands() -> None:
    world = World()
    person_id, secret = join(world, Role.OPERATOR)
    browser = world.browser()
    sign_in(browser, secret)
    browser.post("/keys", data={"name": "batch", "role": "caller"})
    assert world.registry.creators == [person_id]
    answer = browser.post("/api/judgements", json={"ranking": ["drf_a", "drf_b"], "outcome": "ranked"})
    assert answer.status_code in {200, 201}, answer.text
    assert world.registry.judged_by == [person_id]


def test_removing_a_person_ends_their_session_and_a_new_invitation_does_too() -> None:
    world = World()
    operator = world.signed_in()
    for command in ("renew", "remove"):
        person_id, secret = join(world)
        browser = world.browser()
        sign_in(browser, secret)
        assert browser.get("/ask").status_code == 200
        answer = operator.post(f"/people/{person_id}/{command}")
        assert answer.status_code == (200 if command == "renew" else 303)
        elsewhere = world.browser()
        elsewhere.cookies.set(COOKIE, browser.cookies[COOKIE])
        assert elsewhere.get("/ask").headers["location"].startswith("/login")
        assert elsewhere.post("/login", data={"secret": secret, "csrf": csrf(elsewhere)}).status_code == 401
    assert world.people.removed == [(person_id, KEY)]
    assert operator.post(f"/people/{person_id}/remove").status_code == 404


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.OPERATOR])
def test_other_roles_neither_see_nor_manage_people(role: Role) -> None:
    world = World()
    person_id, _ = join(world)
    browser = world.signed_in(role)
    assert browser.get("/people").status_code == 403
    for path in ("/people", f"/people/{person_id}/renew", f"/people/{person_id}/remove"):
        assert browser.post(path, data=FORM).status_code == 403
    assert len(world.people.people) == 1 and not world.people.removed


def test_an_operator_of_some_specialists_manages_only_people_of_those() -> None:
    world = World()
    wide, _ = join(world)
    narrow, _ = join(world, Role.EXPERT, NAME)
    browser = world.signed_in(Role.OPERATOR, NAME)
    listed = browser.get("/people").text
    assert narrow in listed and wide not in listed
    for command in ("renew", "remove"):
        assert browser.post(f"/people/{wide}/{command}").status_code == 404
    assert "at least one of your own" in browser.post("/people", data=FORM).text
    assert browser.post("/people", data=FORM | {"specialists": ["secret-deals"]}).status_code == 404
    assert browser.post("/people", data=FORM | {"specialists": [NAME]}).status_code == 200


@pytest.mark.parametrize("role", ["operator", "data protection"])
def test_the_console_gives_neither_operator_nor_data_protection(role: str) -> None:
    world = World()
    answer = world.signed_in().post("/people", data=FORM | {"role": role})
    assert answer.status_code == 400 and "tailor person invite" in answer.text
    assert not world.people.people


@pytest.mark.parametrize("field", [{"name": " "}, {"name": "x" * 65}, {"mail": "x" * 255}, {"days": 31}, {"days": -1}])
def test_terms_have_limits(field: dict[str, str | int]) -> None:
    with pytest.raises(InvalidArgument):
        InvitationTerms(**({"name": "Ada", "role": Role.EXPERT} | field))  # type: ignore[arg-type]  # a field that is wrong on purpose
