"""API keys and people."""

from services.console.clients import Services
from services.console.domain import GIVEN_ROLES, Permission, Visitor
from services.console.list_views import ListFilter, ListSpec, PageColumn
from services.console.lists.common import ListAnswer, Parameters, by_enum, read_messages, to_columns, to_plain_options
from tailor.api.registry.v1.people_pb2 import ListPeopleRequest, Person
from tailor.api.registry.v1.registry_pb2 import Key, ListKeysRequest
from tailor.list_columns import KEYS, PEOPLE


def list_keys(services: Services, visitor: Visitor, parameters: Parameters) -> ListAnswer[Key]:
    """The API keys that allow no more than the visitor's own."""
    visitor.require(Permission.KEYS)
    spec = ListSpec(
        path="/keys",
        noun="keys",
        columns=to_columns(
            KEYS,
            "key, name, role, Specialists, Methods, calls per minute",
            PageColumn("State", "state"),
            "created, created by, expires, (Actions)",
        ),
        choices=(
            by_enum(Key, "role"),
            ListFilter("state", "State", to_plain_options(("active", "revoked", "expired"))),
        ),
        first="first",
    )
    return read_messages(
        spec,
        parameters,
        services.registry.ListKeys,
        ListKeysRequest(),
        lambda item: visitor.may_grant(item.specialists),
    )


def list_people(services: Services, visitor: Visitor, parameters: Parameters) -> ListAnswer[Person]:
    """The people who may use no more than the visitor, newest first.

    They are not searched by name and mail address, because addresses of pages are in histories of browsers and logs of proxies.
    """
    visitor.require(Permission.PEOPLE)
    spec = ListSpec(
        path="/people",
        noun="people",
        columns=to_columns(
            PEOPLE,
            "person, name, role, Specialists",
            PageColumn("State", "state"),
            "invited, invited by, invitation expires, (Actions)",
        ),
        choices=(
            ListFilter("role", "Role", tuple((role.name, role.value) for role in GIVEN_ROLES)),
            ListFilter("state", "State", to_plain_options(("invited", "active", "expired", "removed"))),
        ),
    )
    return read_messages(
        spec,
        parameters,
        services.people.ListPeople,
        ListPeopleRequest(),
        lambda item: visitor.may_grant(item.specialists),
    )
