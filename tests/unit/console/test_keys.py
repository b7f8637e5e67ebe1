"""API keys on the page: created, shown once and revoked, never with more rights than the visitor's own."""

from datetime import timedelta

import pytest

from services.console.domain import KeyTerms, Role
from services.console.handlers import NewKey
from services.console.rules import key_state
from tailor.errors import InvalidArgument
from tests.unit.console.messages import KEY, NAME, NEW_KEY, NOW, SECRET, STAMP, api_key, later
from tests.unit.console.world import World

FORM: dict[str, str | list[str]] = {"name": " batch ", "role": "caller"}


def test_an_operator_creates_a_key_and_sees_its_secret_once(capsys: pytest.CaptureFixture[str]) -> None:
    world = World()
    browser = world.signed_in()
    form = FORM | {"specialists": [NAME], "methods": "Generate, Trace", "calls_per_minute": "60", "days": "30"}
    answer = browser.post("/keys", data=form)
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert answer.text.count(SECRET) == 1
    assert world.registry.created == [KeyTerms("batch", Role.CALLER, (NAME,), ("Generate", "Trace"), 60, 30)]
    assert world.registry.creators == [KEY]
    again = browser.get("/keys").text
    assert NEW_KEY in again and SECRET not in again
    captured = capsys.readouterr()
    logs = captured.out + captured.err
    assert NEW_KEY in logs and SECRET not in logs


def test_an_operator_revokes_a_key() -> None:
    world = World()
    browser = world.signed_in()
    assert f'action="/keys/{KEY}/revoke"' in browser.get("/keys").text
    answer = browser.post(f"/keys/{KEY}/revoke")
    assert answer.headers["location"] == "/keys?notice=revoked"
    assert world.registry.revoked == [KEY]
    assert browser.post("/keys/key_none/revoke").status_code == 404


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.OPERATOR])
def test_other_roles_cannot_create_or_revoke_keys(role: Role) -> None:
    world = World()
    browser = world.signed_in(role)
    assert browser.post("/keys", data=FORM).status_code == 403
    assert browser.post(f"/keys/{KEY}/revoke").status_code == 403
    assert not world.registry.created and not world.registry.revoked


def test_a_forged_form_creates_and_revokes_nothing() -> None:
    world = World()
    browser = world.signed_in()
    del browser.headers["x-csrf-token"]
    for path in ("/keys", f"/keys/{KEY}/revoke"):
        assert browser.post(path, data=FORM | {"csrf": "guess"}).status_code == 403
    assert not world.registry.created and not world.registry.revoked


def test_an_operator_of_some_specialists_creates_keys_for_those_only() -> None:
    world = World()
    browser = world.signed_in(Role.OPERATOR, NAME)
    wide = browser.post("/keys", data=FORM)
    assert wide.status_code == 400 and "at least one of your own" in wide.text
    assert browser.post("/keys", data=FORM | {"specialists": [NAME, "secret-deals"]}).status_code == 404
    assert world.registry.created == []
    assert browser.post("/keys", data=FORM | {"specialists": [NAME]}).status_code == 200


def test_an_operator_of_some_specialists_cannot_see_or_revoke_wider_keys() -> None:
    world = World()
    narrow = api_key("key_narrow", specialists=[NAME])
    wide_keys = [api_key("key_all"), api_key("key_both", specialists=[NAME, "secret-deals"])]
    world.registry.keys, world.registry.page_size = [*wide_keys, narrow], 2
    browser = world.signed_in(Role.OPERATOR, NAME)
    listed = browser.get("/keys").text + browser.get("/keys?token=2").text
    assert "key_narrow" in listed and "key_all" not in listed and "key_both" not in listed
    for key in wide_keys:
        assert browser.post(f"/keys/{key.key_id}/revoke").status_code == 404
    assert browser.post("/keys/key_narrow/revoke").status_code == 303
    assert world.registry.revoked == ["key_narrow"]


def test_a_revoked_or_expired_key_cannot_be_revoked() -> None:
    world = World()
    world.registry.keys = [api_key("key_gone", revoked=True), api_key("key_late", expire_time=STAMP)]
    text = world.signed_in().get("/keys").text
    assert 'badge bad">revoked' in text and 'badge bad">expired' in text
    assert "/revoke" not in text


def test_a_key_expires_at_its_time() -> None:
    key = api_key(expire_time=later(minutes=1))
    assert (key_state(key, NOW), key_state(key, NOW + timedelta(minutes=1))) == ("active", "expired")


@pytest.mark.parametrize(
    ("terms", "field"),
    [
        ({"name": " "}, "name"),
        ({"name": "x" * 65}, "name"),
        ({"name": "n", "calls_per_minute": -1}, "calls_per_minute"),
        ({"name": "n", "days": 4000}, "days"),
    ],
)
def test_invalid_terms_are_refused_with_their_field(terms: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        KeyTerms(role=Role.CALLER, **terms)  # type: ignore[arg-type]
    assert set(caught.value.field_violations) == {field}


@pytest.mark.parametrize("role", [Role.OPERATOR, Role.DATA_PROTECTION])
def test_the_console_offers_and_gives_neither_operators_nor_data_protections_keys(role: Role) -> None:
    world = World()
    browser = world.signed_in(Role.OPERATOR)
    assert f'<option value="{role.value}">' not in browser.get("/keys").text
    answer = browser.post("/keys", data=FORM | {"role": role.value})
    assert answer.status_code == 400 and "tailor key create" in answer.text
    assert not world.registry.created


@pytest.mark.parametrize("change", [{"role": "king"}, {"days": "soon"}, {"name": ""}])
def test_an_invalid_form_is_refused(change: dict[str, str]) -> None:
    world = World()
    assert world.signed_in().post("/keys", data=FORM | change).status_code == 400
    assert world.registry.created == []


def test_the_repr_of_a_new_key_has_no_secret() -> None:
    assert SECRET not in repr(NewKey(api_key(), SECRET))
