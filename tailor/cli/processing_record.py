"""`tailor policy record`: the record of processing activities (GDPR Art. 30), from topics, buckets and the policy in force."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from tailor.api.anonymization.v1 import policy_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.cli.calls import first, pages
from tailor.cli.output import list_table_lines, short
from tailor.cli.session import CommandSession
from tailor.errors import InvalidArgument, Reason
from tailor.events.topics import Topic, load_topics
from tailor.storage.buckets import ACCESS, BUCKETS, split_scope
from tailor.storage.policies import EXPIRY_RULES

UNKNOWN = "to be filled in by the controller"
SPECIALISTS = 200
HISTORY = 20
PURPOSES = {
    "quarantine": "raw texts on their way to the barrier; kept for replays only if the operator says so",
    "corpus": "anonymised documents",
    "datasets": "training rows made of anonymised documents",
    "models": "bases, checkpoints and adapters",
    "drafts": "anonymised answers of specialists that keep them",
    "reports": "evaluations",
}
SAFEGUARDS = (
    "true values are AES-256-GCM encrypted in the vault, and found by a keyed hash; the key comes from outside",
    "quarantine is encrypted with a key that only ingestion and anonymization hold",
    "each service has its own credentials and the rights of the tables above",
    "every call is authorised by role; re-identification, erasure and access requests are audited",
    "no personal data in keys, headers, logs or metrics beyond the raw zone",
)


def record(
    session: CommandSession,
    *,
    out: Annotated[Path | None, typer.Option(help="Write the Markdown to this file instead of showing it.")] = None,
    controller: Annotated[str, typer.Option(help="Name and contact details of the controller.")] = UNKNOWN,
    officer: Annotated[str, typer.Option(help="Name and contact details of the data protection officer.")] = UNKNOWN,
) -> None:
    """Write the record of processing activities (GDPR Art. 30) of this installation as Markdown."""
    stub = session.connections.policies
    policy = stub.CheckPolicy(policy_pb2.CheckPolicyRequest())
    history = first(HISTORY, pages(stub.ListPolicies, policy_pb2.ListPoliciesRequest()))
    specialists = _specialists(session)
    text = render(policy, history, specialists, controller=controller, officer=officer)
    if out is None:
        session.output.emit({"markdown": text}, text)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidArgument(Reason.INVALID_FILE, f"{out} cannot be written: {error.strerror}.") from None
    session.output.emit({"file": str(out)}, f"wrote {out}")


def _specialists(session: CommandSession) -> list[str]:
    registry = session.connections.registry
    specialists = first(SPECIALISTS, pages(registry.ListSpecialists, registry_pb2.ListSpecialistsRequest()))
    return [item.specialist.name for item in specialists]


def render(
    policy: policy_pb2.CheckPolicyResponse,
    history: Sequence[policy_pb2.InstalledPolicy],
    specialists: Sequence[str],
    *,
    controller: str,
    officer: str,
) -> str:
    """The record, in the order of Art. 30(1)."""
    kinds = [decision for decision in policy.decisions if decision.rule < 0]
    lines = [
        "# Record of processing activities",
        "",
        f"GDPR Art. 30(1). Generated {datetime.now(UTC):%Y-%m-%d} from topics, buckets and policy {short(policy.policy_digest)}.",
        "",
        "## (a) Controller",
        "",
        f"- controller: {controller}",
        f"- data protection officer: {officer}",
        "",
        "## (b) Purposes",
        "",
        *_purposes(specialists),
        "",
        "## (c) Categories of data subjects and of personal data",
        "",
        "Data subjects: people whom documents name, such as staff, clients and their contacts; callers and experts by opaque ids.",
        "",
        *list_table_lines(("category", "what the barrier does"), ((item.entity_type, item.action) for item in kinds)),
        "",
        "## (d) Recipients",
        "",
        *list_table_lines(("bucket", "content", "services with access"), _buckets()),
        "",
        *list_table_lines(("topic", "content", "producers", "consumers"), _topics(load_topics().values())),
        "",
        "## (e) Transfers to third countries",
        "",
        f"None by Tailor itself, which is self-hosted. A teacher model outside, if one is configured: {UNKNOWN}",
        "",
        "## (f) Time limits for erasure",
        "",
        *list_table_lines(("where", "time"), _limits()),
        "",
        "## (g) Technical and organisational measures (Art. 32)",
        "",
        *(f"- {safeguard}" for safeguard in SAFEGUARDS),
        "",
        "## Policies that were in force",
        "",
        *list_table_lines(("policy", "detectors", "installed by", "at"), _history(history)),
        "",
    ]
    return "\n".join(lines)


def _purposes(specialists: Sequence[str]) -> Iterator[str]:
    yield "- training and serving language models on the company's own, anonymised documents"
    for name in specialists:
        yield f"- specialist `{name}`"


def _buckets() -> Iterator[tuple[str, str, str]]:
    for bucket in BUCKETS:
        access = {
            f"{service} ({right})"
            for service, scopes in ACCESS.items()
            for scope, right in scopes.items()
            if split_scope(scope)[0] == bucket
        }
        yield bucket, PURPOSES[bucket], ", ".join(sorted(access))


def _topics(topics: Iterable[Topic]) -> Iterator[tuple[str, str, str, str]]:
    for topic in topics:
        content = f"{topic.description} {'Holds personal data.' if topic.raw_zone else 'Ids and counts.'}"
        yield topic.name, content, ", ".join(topic.producers), ", ".join(topic.consumers)


def _limits() -> Iterator[tuple[str, str]]:
    for bucket, rules in EXPIRY_RULES.items():
        for prefix, days in rules.items():
            yield f"bucket {bucket}{f', {prefix}' if prefix else ''}", f"{days} days at the latest"
    for topic in load_topics().values():
        hours = topic.retention_hours
        yield f"topic {topic.name}", "newest per key" if hours is None else f"{hours} hours"
    yield "corpus, datasets, adapters", "until erased (`tailor erasure create`) or superseded (`tailor replay start`)"


def _history(history: Sequence[policy_pb2.InstalledPolicy]) -> Iterator[tuple[str, str, str, str]]:
    for item in history:
        at = item.create_time.ToDatetime().strftime("%Y-%m-%d %H:%M")
        yield short(item.policy_digest), short(item.detectors_digest), item.installed_by, at
