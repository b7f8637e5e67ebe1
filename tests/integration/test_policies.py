"""The policy in force, over PostgreSQL: who installed it, replicas, settings, and what passed under another one."""

import base64
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from services.anonymization import wire
from services.anonymization.adapters.policies import SqlPolicies, rotate_policies
from services.anonymization.domain import Ingested, Passed, Policy
from services.anonymization.ledger import SqlLedger
from services.anonymization.policy.comparison import compare
from services.anonymization.policy.installed import CurrentPolicy, PolicyParts, install_from_settings
from services.anonymization.policy.policy_file import load_policy, parse_policy
from services.anonymization.rpc import PolicyServicer
from services.anonymization.settings import Settings
from services.anonymization.vault.keyring import Keyring
from tailor.api.anonymization.v1 import policy_pb2
from tailor.errors import InvalidArgument
from tailor.events.memory import MemoryProducer
from tailor.rpc.auth import Caller, set_caller
from tailor.storage.ref import Ref
from tailor.values import Labels
from tests.barrier import MIGRATIONS
from tests.conftest import migrated
from tests.unit.anonymization.fakes import OneNameAnonymizer

pytestmark = pytest.mark.integration

KEYS = Keyring(b"k" * 32)
KEY = base64.b64encode(b"k" * 32).decode()
STRICT = 'extends = "gdpr-article-9"\n[deny]\nPERSON = ["Ngozi Okafor"]\n'


class Replica:
    """One replica."""

    def __init__(self, engine: Engine, detectors: str = "detectors-1", file: Path | None = None) -> None:
        self.policies = SqlPolicies(engine, KEYS)
        self.producer = MemoryProducer("anonymization")
        settings = Settings(quarantine_key=KEY, vault_key=KEY, policy_file=file)
        install_from_settings(self.policies, settings, detectors)
        self.current = CurrentPolicy(self.policies, self.build, partial(wire.announce, self.producer), detectors)
        self.servicer = PolicyServicer(self.current, self.policies, SqlLedger(engine))

    def build(self, policy: Policy) -> PolicyParts:
        nobody: Any = None
        return PolicyParts(OneNameAnonymizer(), nobody, nobody, nobody)

    def announced(self) -> list[int]:
        return [message.generation for _, _, message, _ in self.producer.sent]  # type: ignore[attr-defined]

    def apply(self, source: str) -> policy_pb2.ApplyPolicyResponse:
        set_caller(Caller("key", "ada", "ROLE_DATA_PROTECTION", key_id="key_7"))
        return self.servicer.ApplyPolicy(policy_pb2.ApplyPolicyRequest(policy=source), None)  # type: ignore[arg-type]


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    with migrated(database_url, MIGRATIONS) as engine:
        yield engine


def pass_document(engine: Engine, number: int, policy: str, labels: Labels, **findings: int) -> None:
    ref = Ref(f"s3://quarantine/documents/{number}", "ab", 1)
    ingested = Ingested(f"doc_{number:032x}", f"sub_{number}", 1, "digest", 1, labels, ref, "md", "")
    corpus = Ref(f"s3://corpus/documents/{number}", "cd", 1)
    SqlLedger(engine).record(Passed(ingested, corpus, 9, findings, policy, 1, "en", (), "detectors-1"))


def test_a_policy_is_applied_for_every_replica_and_recorded_with_its_caller(engine: Engine) -> None:
    first, second = Replica(engine), Replica(engine)
    assert first.current.policy.digest == load_policy().digest
    applied = first.apply(STRICT)
    assert applied.changed and applied.policy.installed_by == "key_7" and applied.policy.generation == 2
    second.current.anonymize(("Ms Okafor decides.",))
    assert second.current.policy.digest == parse_policy(STRICT.encode()).digest == applied.policy.policy_digest
    assert not first.apply(STRICT).changed
    assert first.announced()[-1] == 2 and second.announced() == [1, 2]
    history = first.servicer.ListPolicies(policy_pb2.ListPoliciesRequest(page_size=1), None)  # type: ignore[arg-type]
    assert [item.generation for item in history.policies] == [2] and history.next_page_token


def test_a_wrong_policy_changes_nothing_and_is_reported_field_by_field(engine: Engine) -> None:
    replica = Replica(engine)
    with pytest.raises(InvalidArgument) as refused:
        replica.apply('[types]\nPERSON = "hide"\n[codes]\nCODE = ["(a+)+$"]\n')
    assert "types.PERSON" in refused.value.field_violations
    with pytest.raises(InvalidArgument):
        replica.apply("  ")
    assert replica.current.look().generation == 1


def test_names_in_a_policy_are_encrypted_and_survive_a_new_key(engine: Engine) -> None:
    Replica(engine).apply(STRICT)
    with engine.connect() as connection:
        stored = connection.exec_driver_sql("SELECT ciphertext FROM policies").scalars().all()
    assert all(b"Okafor" not in bytes(data) for data in stored)
    renewed = Keyring(b"n" * 32, [b"k" * 32])
    assert rotate_policies(engine, renewed) == 2 and rotate_policies(engine, renewed) == 0
    assert SqlPolicies(engine, Keyring(b"n" * 32)).newest()[1] == STRICT.encode()


def test_the_last_change_counts_whether_a_file_or_a_command(engine: Engine, tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text('extends = "ccpa"\n')
    first = Replica(engine, file=file)
    assert first.current.installed.installed_by == "settings"
    first.apply(STRICT)
    assert Replica(engine, file=file).current.installed.installed_by == "key_7"
    file.write_text('extends = "hipaa-safe-harbor"\n')
    assert Replica(engine, file=file).current.installed.policy_digest == load_policy(file).digest


def test_a_new_default_does_not_replace_what_was_applied_and_new_detectors_are_recorded(engine: Engine) -> None:
    assert Replica(engine).current.installed.installed_by == "default"
    Replica(engine).apply(STRICT)
    later = Replica(engine, detectors="detectors-2").current.installed
    assert (later.installed_by, later.generation) == ("detectors", 3)
    assert later.policy_digest == parse_policy(STRICT.encode()).digest
    assert (
        later.barrier_digest != SqlPolicies(engine, KEYS).list(policy_pb2.ListPoliciesRequest()).items[1].barrier_digest
    )


def test_counts_what_passed_under_another_policy_and_where_two_policies_differ(engine: Engine) -> None:
    replica = Replica(engine)
    digest, people = replica.current.policy.digest, Labels("wiki", "people", "internal")
    pass_document(engine, 1, digest, people, PERSON=2, IBAN=1)
    pass_document(engine, 2, "earlier", people, PERSON=3)
    pass_document(engine, 3, digest, Labels("wiki", "risk", ""), IBAN=4)
    ledger = SqlLedger(engine)
    assert ledger.count_outdated(digest, "detectors-1") == 1 and ledger.count_outdated(digest, "other") == 3
    differences = compare(
        replica.current.policy, parse_policy(b'extends = "hipaa-safe-harbor"\n'), ledger.count_findings()
    )
    ibans = [(d.labels, d.before, d.after, d.documents, d.values) for d in differences if d.entity_type == "IBAN"]
    assert sorted(entry[3:] for entry in ibans) == [(0, 0), (1, 1), (1, 4)]
    assert {entry[1:3] for entry in ibans} == {("surrogate", "mask")}
    assert not [d for d in differences if d.entity_type == "PERSON"]
