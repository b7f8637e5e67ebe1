"""Who may do what at the broker: users and their rules, made from `proto/topics.yaml`.

- A publisher writes one topic, and does nothing else. Documents, examples, tests and deliverables have publishers of their own, so that who
  publishes documents writes neither train rows nor golden rows.
- A service writes what it produces, reads what it consumes, and joins its own consumer group.
- The operator reads every topic outside the raw zone, for `tailor event read`; it joins no group.

Only ingestion reads the topics of the raw zone.
"""

import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tailor.errors import FailedPrecondition, Reason
from tailor.events.topics import Topic

if TYPE_CHECKING:
    from kafka.admin import KafkaAdminClient

PUBLISHER = "publisher"
# Each writes the one topic that names it as its producer.
PUBLISHERS = (PUBLISHER, "example-publisher", "test-publisher", "deliverable-publisher")
OPERATOR = "operator"
NAME = "{name}"
EVERYBODY = "User:*"
READ_BACK_SECONDS = 15.0
READ_BACK_PAUSE_SECONDS = 0.2

Operation = Literal["READ", "WRITE", "DELETE"]
Kind = Literal["TOPIC", "GROUP"]


@dataclass(frozen=True, order=True)
class AccessRule:
    """One thing that a user may do. Kafka lets who may read or write a topic or group describe it too."""

    user: str
    operation: Operation
    kind: Kind
    resource: str


@dataclass(frozen=True)
class KafkaNames:
    """The names of an installation at its broker.

    `principal` is the form of its users' principals, in which `{name}` stands for the user: `User:tailor-{name}` with passwords, or
    `User:CN=tailor-{name},O=Example` with client certificates. `publishers` are the users outside who publish documents.
    """

    principal: str = "User:tailor-{name}"
    topic_prefix: str = ""
    group_prefix: str = ""
    publishers: tuple[str, ...] = (PUBLISHER,)

    def principal_of(self, user: str) -> str:
        """The principal of a user."""
        return self.principal.replace(NAME, user)

    def username_of(self, user: str) -> str:
        """The name under which a user signs in with a password."""
        return self.principal_of(user).removeprefix("User:")

    def is_own(self, principal: str) -> bool:
        """True for a principal that has this installation's form."""
        before, _, after = self.principal.partition(NAME)
        return re.fullmatch(f"{re.escape(before)}[A-Za-z0-9_-]+{re.escape(after)}", principal) is not None


def check_names(names: KafkaNames) -> None:
    """Raise ValueError unless the form of principals names this installation's users and nobody else's."""
    before, mark, _ = names.principal.partition(NAME)
    if not mark or not before.startswith("User:") or before == "User:":
        raise ValueError(
            f"TAILOR_KAFKA_PRINCIPAL is {names.principal!r}; it must begin with `User:`, a prefix of this installation, and "
            "`{name}`, as in `User:tailor-{name}`. Rules of other principals are not changed."
        )
    if not names.publishers:
        raise ValueError("TAILOR_KAFKA_PUBLISHERS names nobody; then no document could be published.")


def users(topics: Iterable[Topic], names: KafkaNames) -> list[str]:
    """Every user of an installation."""
    return sorted({rule.user for rule in rules(topics, names)})


def rules(topics: Iterable[Topic], names: KafkaNames) -> list[AccessRule]:
    """Every rule of an installation, sorted."""
    wanted: set[AccessRule] = set()
    for topic in topics:
        name = names.topic_prefix + topic.name
        for producer in topic.producers:
            writers = names.publishers if producer == PUBLISHER else (producer,)
            wanted |= {AccessRule(writer, "WRITE", "TOPIC", name) for writer in writers}
        wanted |= {AccessRule(consumer, "READ", "TOPIC", name) for consumer in topic.consumers}
        if topic.unread_retention_hours:
            # Its consumer deletes what it has handled.
            wanted |= {AccessRule(consumer, "DELETE", "TOPIC", name) for consumer in topic.consumers}
        # The group of a service has its name.
        groups = [consumer for consumer, delivery in topic.consumers.items() if delivery in ("shared", "both")]
        wanted |= {AccessRule(consumer, "READ", "GROUP", names.group_prefix + consumer) for consumer in groups}
        if not topic.raw_zone:
            wanted.add(AccessRule(OPERATOR, "READ", "TOPIC", name))
    return sorted(wanted)


def apply_rules(admin: "KafkaAdminClient", topics: Iterable[Topic], names: KafkaNames) -> list[str]:
    """Bring the broker's rules for this installation's users to what is listed, and read them back.

    Returns one line per change, and a warning for each rule that lets everybody use a topic or group of the installation. Rules of these
    users that are not listed are deleted; rules of others are not changed. Idempotent. Raises FailedPrecondition if the
    broker keeps other rules than it was given, or has no authorizer.
    """
    check_names(names)
    wanted = {_to_acl(rule, names): rule for rule in rules(topics, names)}
    present = _own_acls(admin, names)
    missing, obsolete = [acl for acl in wanted if acl not in present], present - wanted.keys()
    if missing:
        failed = admin.create_acls(missing)["failed"]
        if failed:
            raise _refused(
                f"{len(failed)} of {len(missing)} rules ({', '.join(sorted({_text(error) for error in failed}))})"
            )
    if obsolete:
        admin.delete_acls(list(obsolete))
    deadline = time.monotonic() + READ_BACK_SECONDS
    while _own_acls(admin, names) != wanted.keys():
        # The controller has taken the rules; this broker learns of them in a moment.
        if time.monotonic() > deadline:
            raise _refused("rules: it keeps others than it was given")
        time.sleep(READ_BACK_PAUSE_SECONDS)
    changes = [f"allowed {describe(wanted[acl])}" for acl in missing] + sorted(f"took away {acl}" for acl in obsolete)
    return changes + _warn_of_everybody(admin, wanted.values())


def apply_users(
    admin: "KafkaAdminClient", passwords: Mapping[str, str], mechanism: str, username: Callable[[str], str]
) -> None:
    """Create the users, or set their passwords (SCRAM). Idempotent. Raises FailedPrecondition if the broker refuses."""
    from kafka.admin import ScramMechanism, UserScramCredentialUpsertion

    kind = ScramMechanism[mechanism.replace("-", "_")]
    upsertions = [
        UserScramCredentialUpsertion(username(user), kind, password) for user, password in sorted(passwords.items())
    ]
    failed = {user: error for user, error in admin.alter_user_scram_credentials(upsertions).items() if error}
    if failed:
        raise _refused("; ".join(f"user {user}: {error}" for user, error in sorted(failed.items())))


def describe(rule: AccessRule) -> str:
    """A rule in words."""
    return f"{rule.user} to {rule.operation} {rule.kind.lower()} {rule.resource}"


def _warn_of_everybody(admin: "KafkaAdminClient", listed: Iterable[AccessRule]) -> list[str]:
    """One line for each rule by which everybody may use a resource of the listed rules, or the whole cluster."""
    from kafka.admin import ACLPermissionType

    resources = {(rule.kind, rule.resource) for rule in listed}
    found = [
        acl
        for acl in _all_acls(admin)
        if acl.principal == EVERYBODY
        and acl.permission_type is ACLPermissionType.ALLOW
        and (acl.resource_pattern.resource_type.name == "CLUSTER" or any(_covers(acl, *each) for each in resources))
    ]
    return sorted(
        f"warning: {EVERYBODY} may {acl.operation.name} {acl.resource_pattern.resource_type.name.lower()} "
        f"{acl.resource_pattern.resource_name}, so Tailor's own rules do not keep others out. Remove this rule."
        for acl in found
    )


def _covers(acl: Any, kind: Kind, resource: str) -> bool:
    """True if a rule is about this topic or group."""
    pattern = acl.resource_pattern
    if pattern.resource_type.name != kind:
        return False
    if pattern.pattern_type.name == "PREFIXED":
        return resource.startswith(pattern.resource_name)
    return pattern.resource_name in ("*", resource)


def _own_acls(admin: "KafkaAdminClient", names: KafkaNames) -> set[Any]:
    return {acl for acl in _all_acls(admin) if names.is_own(acl.principal)}


def _all_acls(admin: "KafkaAdminClient") -> list[Any]:
    from kafka.admin import (
        ACLFilter,
        ACLOperation,
        ACLPermissionType,
        ACLResourcePatternType,
        ResourcePatternFilter,
        ResourceType,
    )

    everything = ACLFilter(
        principal=None,
        host=None,
        operation=ACLOperation.ANY,
        permission_type=ACLPermissionType.ANY,
        resource_pattern=ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY),
    )
    acls, _ = admin.describe_acls(everything)
    return list(acls)


def _to_acl(rule: AccessRule, names: KafkaNames) -> Any:
    from kafka.admin import ACL, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType

    return ACL(
        principal=names.principal_of(rule.user),
        host="*",
        operation=ACLOperation[rule.operation],
        permission_type=ACLPermissionType.ALLOW,
        resource_pattern=ResourcePattern(ResourceType[rule.kind], rule.resource),
    )


def _refused(what: str) -> FailedPrecondition:
    return FailedPrecondition(Reason.ACCESS_NOT_GRANTED, f"The broker refuses {what}.")


def _text(error: Any) -> str:
    return str(getattr(error, "__name__", error))
