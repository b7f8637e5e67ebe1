"""API keys and people."""

from datetime import datetime

from services.console import rules
from services.console.domain import GIVEN_ROLES, Permission, Visitor
from services.console.listing import Column, ListFilter, ListSpec
from services.console.lists.common import ListAnswer, Parameters, read_spec, seconds, to_options, to_plain_options
from services.console.ports import Services
from services.console.reads import read_keys, read_people
from tailor.api.common.v1 import common_pb2
from tailor.api.registry.v1 import people_pb2, registry_pb2


def list_keys(
    services: Services, visitor: Visitor, parameters: Parameters, now: datetime
) -> ListAnswer[registry_pb2.Key]:
    """The API keys that allow no more than the visitor's own, newest first."""
    visitor.require(Permission.KEYS)

    def state(item: registry_pb2.Key) -> str:
        return rules.key_state(item, now)

    spec = ListSpec[registry_pb2.Key](
        path="/keys",
        noun="keys",
        columns=(
            Column("Key", "key", lambda item: item.key_id),
            Column("Purpose", "purpose", lambda item: item.name),
            Column("Role", "role", lambda item: rules.word(item, "role")),
            Column("Specialists"),
            Column("Methods"),
            Column("Calls per minute", "calls", lambda item: item.calls_per_minute, numeric=True),
            Column("State", "state", state),
            Column("Created (UTC)", "created", lambda item: seconds(item.create_time), numeric=True),
            Column("Created by", "created-by", lambda item: item.created_by),
            Column("Expires (UTC)", "expires", lambda item: seconds(item.expire_time), numeric=True),
            Column("Actions", silent=True),
        ),
        text=lambda item: " ".join((item.key_id, item.name, item.created_by, *item.specialists, *item.methods)),
        searched="ids, purpose, specialists, methods",
        choices=(
            ListFilter("role", "Role", to_options(common_pb2.Role, "ROLE_"), lambda item: rules.code(item, "role")),
            ListFilter("state", "State", to_plain_options(("active", "revoked", "expired")), state),
        ),
    )
    return read_spec(
        spec,
        parameters,
        "registry",
        lambda token, query: read_keys(services, token),
        lambda item: visitor.may_grant(item.specialists),
    )


def list_people(
    services: Services, visitor: Visitor, parameters: Parameters, now: datetime
) -> ListAnswer[people_pb2.Person]:
    """The people who may use no more than the visitor, newest first."""
    visitor.require(Permission.PEOPLE)

    def state(item: people_pb2.Person) -> str:
        return rules.person_state(item, now)

    spec = ListSpec[people_pb2.Person](
        path="/people",
        noun="people",
        columns=(
            Column("Person", "person", lambda item: item.person_id),
            Column("Name", "name", lambda item: item.name),
            Column("Role", "role", lambda item: rules.word(item, "role")),
            Column("Specialists"),
            Column("State", "state", state),
            Column("Invited (UTC)", "invited", lambda item: seconds(item.create_time), numeric=True),
            Column("Invited by", "invited-by", lambda item: item.invited_by),
            Column(
                "Invitation expires (UTC)", "expires", lambda item: seconds(item.invitation_expire_time), numeric=True
            ),
            Column("Actions", silent=True),
        ),
        # Addresses of pages are in histories of browsers and logs of proxies, so they must not contain names and mail addresses.
        text=lambda item: " ".join((item.person_id, item.invited_by, *item.specialists)),
        searched="ids and specialists; sort by name to find a name",
        choices=(
            ListFilter(
                "role",
                "Role",
                to_plain_options(role.value for role in GIVEN_ROLES),
                lambda item: rules.word(item, "role"),
            ),
            ListFilter("state", "State", to_plain_options(("invited", "active", "expired", "removed")), state),
        ),
    )
    return read_spec(
        spec,
        parameters,
        "registry",
        lambda token, query: read_people(services, token),
        lambda item: visitor.may_grant(item.specialists),
    )
