"""API keys on the page: made, shown once and revoked, with no more rights than the visitor's own."""

from dataclasses import replace
from datetime import timedelta

import pytest

from services.console.domain import KeyTerms, Role
from services.console.views import Key, NewKey
from tailor.errors import InvalidArgument
from tests.unit.console.fakes import NAME, NEW_KEY, NOW, SECRET, World

FORM: dict[str, str | list[str]] = {"name": " batch ", "role": "caller"}
LISTED = "key_0011223344556677"


def test_an_operator_makes_a_key_and_sees_its_secret_once(capsys: pytest.CaptureFixture[str]) -> None:
    world = World()
    browser = world.signed_in()
    form = FORM | {"specialists": [NAME], "methods": "Generate, Trace", "calls_per_minute": "60", "days": "30"}
    answer = browser.post("/keys", data=form)
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert answer.text.count(SECRET) == 1
    assert world.registry.made == [KeyTerms("batch", Role.CALLER, (NAME,), ("Generate", "Trace"), 60, 30)]
    again = browser.get("/keys").text
    assert NEW_KEY in again and SECRET not in again
    said = capsys.readouterr()
    assert NEW_KEY in said.out + said.err and SECRET not in said.out + said.err


def test_an_operator_revokes_a_key() -> None:
    world = World()
    browser = world.signed_in()
    assert f'action="/keys/{LISTED}/revoke"' in browser.get("/keys").text
    answer = browser.post(f"/keys/{LISTED}/revoke")
    assert answer.headers["location"] == "/keys?said=revoked"
    assert world.registry.revoked == [LISTED]
    assert browser.post("/keys/key_none/revoke").status_code == 404


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.OPERATOR])
def test_nobody_else_makes_or_revokes_keys(role: Role) -> None:
    world = World()
    browser = world.signed_in(role)
    assert browser.post("/keys", data=FORM).status_code == 403
    assert browser.post(f"/keys/{LISTED}/revoke").status_code == 403
    assert not world.registry.made and not world.registry.revoked


def test_no_key_is_made_or_revoked_by_a_forged_form() -> None:
    world = World()
    browser = world.signed_in()
    del browser.headers["x-csrf-token"]
    for path in ("/keys", f"/keys/{LISTED}/revoke"):
        assert browser.post(path, data=FORM | {"csrf": "guess"}).status_code == 403
    assert not world.registry.made and not world.registry.revoked


def test_an_operator_of_some_specialists_gives_no_more_than_those() -> None:
    world = World()
    browser = world.signed_in(Role.OPERATOR, NAME)
    wide = browser.post("/keys", data=FORM)
    assert wide.status_code == 400 and "at least one of your own" in wide.text
    assert browser.post("/keys", data=FORM | {"specialists": [NAME, "secret-deals"]}).status_code == 404
    assert world.registry.made == []
    assert browser.post("/keys", data=FORM | {"specialists": [NAME]}).status_code == 200


def test_an_operator_of_some_specialists_sees_and_revokes_no_wider_key() -> None:
    world = World()
    mine = Key("key_mine", "mine", "caller", (NAME,), False, NOW)
    others = [
        Key("key_all", "all", "caller", (), False, NOW),
        Key("key_both", "both", "caller", (NAME, "secret-deals"), False, NOW),
    ]
    world.registry.key_items, world.registry.page_size = [*others, mine], 2
    browser = world.signed_in(Role.OPERATOR, NAME)
    listed = browser.get("/keys").text + browser.get("/keys?token=2").text
    assert "key_mine" in listed and "key_all" not in listed and "key_both" not in listed
    for key in others:
        assert browser.post(f"/keys/{key.key_id}/revoke").status_code == 404
    assert browser.post("/keys/key_mine/revoke").status_code == 303
    assert world.registry.revoked == ["key_mine"]


def test_a_key_that_ended_offers_no_revocation() -> None:
    world = World()
    key = world.registry.key_items[0]
    world.registry.key_items = [
        replace(key, key_id="key_gone", revoked=True),
        replace(key, key_id="key_late", expire_time=NOW),
    ]
    text = world.signed_in().get("/keys").text
    assert 'badge bad">revoked' in text and 'badge bad">expired' in text
    assert "/revoke" not in text


def test_a_key_knows_when_it_ends() -> None:
    key = Key("key_1", "n", "caller", (), False, NOW, NOW + timedelta(days=1))
    assert (key.state(NOW), key.state(NOW + timedelta(days=1))) == ("active", "expired")


@pytest.mark.parametrize(
    ("terms", "field"),
    [
        ({"name": " "}, "name"),
        ({"name": "x" * 65}, "name"),
        ({"name": "n", "calls_per_minute": -1}, "calls_per_minute"),
        ({"name": "n", "days": 4000}, "days"),
    ],
)
def test_wrong_terms_are_refused_with_their_field(terms: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        KeyTerms(role=Role.CALLER, **terms)  # type: ignore[arg-type]
    assert set(caught.value.field_violations) == {field}


@pytest.mark.parametrize("wrong", [{"role": "king"}, {"days": "soon"}, {"name": ""}])
def test_a_form_that_makes_no_sense_is_refused(wrong: dict[str, str]) -> None:
    world = World()
    assert world.signed_in().post("/keys", data=FORM | wrong).status_code == 400
    assert world.registry.made == []


def test_a_new_key_does_not_write_its_secret() -> None:
    assert SECRET not in repr(NewKey(Key("key_1", "n", "caller", (), False), SECRET))
