"""API keys and people."""

from datetime import datetime

from services.console import rules
from services.console.domain import GIVEN_ROLES, Permission, Visitor
from services.console.listing import ListFilter, ListSpec, PageColumn
from services.console.lists.common import ListAnswer, Parameters, by_enum, read_messages, to_columns, to_plain_options
from services.console.ports import Services
from tailor.api.registry.v1.people_pb2 import ListPeopleRequest, Person
from tailor.api.registry.v1.registry_pb2 import Key, ListKeysRequest
from tailor.columns import join, read
from tailor.list_columns import KEYS, PEOPLE


def list_keys(services: Services, visitor: Visitor, parameters: Parameters, now: datetime) -> ListAnswer[Key]:
    """The API keys that allow no more than the visitor's own, newest first."""
    visitor.require(Permission.KEYS)

    def state(item: Key) -> str:
        return rules.key_state(item, now)

    spec = ListSpec[Key](
        path="/keys",
        noun="keys",
        columns=to_columns(
            KEYS,
            "key, name, role, Specialists, Methods, calls per minute",
            PageColumn("State", "state", state),
            "created, created by, expires, (Actions)",
        ),
        text=join("key_id, name, created_by, specialists, methods"),
        searched="ids, name, specialists, methods",
        choices=(
            by_enum(Key, "role"),
            ListFilter("state", "State", to_plain_options(("active", "revoked", "expired")), state),
        ),
    )
    return read_messages(
        spec,
        parameters,
        services.registry.ListKeys,
        ListKeysRequest(),
        lambda item: visitor.may_grant(item.specialists),
    )


def list_people(services: Services, visitor: Visitor, parameters: Parameters, now: datetime) -> ListAnswer[Person]:
    """The people who may use no more than the visitor, newest first."""
    visitor.require(Permission.PEOPLE)

    def state(item: Person) -> str:
        return rules.person_state(item, now)

    spec = ListSpec[Person](
        path="/people",
        noun="people",
        columns=to_columns(
            PEOPLE,
            "person, name, role, Specialists",
            PageColumn("State", "state", state),
            "invited, invited by, invitation expires, (Actions)",
        ),
        # Addresses of pages are in histories of browsers and logs of proxies, so they must not contain names and mail addresses.
        text=join("person_id, invited_by, specialists"),
        searched="ids and specialists; sort by name to find a name",
        choices=(
            ListFilter(
                "role",
                "Role",
                to_plain_options(role.value for role in GIVEN_ROLES),
                lambda item: str(read(item, "role")),
            ),
            ListFilter("state", "State", to_plain_options(("invited", "active", "expired", "removed")), state),
        ),
    )
    return read_messages(
        spec,
        parameters,
        services.people.ListPeople,
        ListPeopleRequest(),
        lambda item: visitor.may_grant(item.specialists),
    )
