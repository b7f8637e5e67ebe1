"""The environment that each service of the embedded stack gets."""

from pathlib import Path

import pytest

from tailor.local.environment import NOTHING_PHONES_HOME, StackPlan, service_environment
from tailor.local.layout import SERVICES, WITH_DATABASE, Layout
from tailor.local.ports import Ports
from tailor.local.secrets import ensure
from tailor.settings import ServiceSettings
from tailor.storage.buckets import ACCESS

SHELL = {
    "PATH": "/usr/bin",
    "HOME": "/home/ada",
    "LANG": "C.UTF-8",
    "AWS_SECRET_ACCESS_KEY": "not yours",
    "HTTPS_PROXY": "http://p",
}
# Secrets that two services share on purpose: the raw zone's key.
SHARED = {"quarantine.key": {"ingestion", "anonymization"}}


@pytest.fixture
def plan(tmp_path: Path) -> StackPlan:
    layout = Layout(tmp_path)
    return StackPlan(layout, Ports(20000), ensure(layout))


def test_inherits_only_the_listed_variables(plan: StackPlan) -> None:
    for service in SERVICES:
        environment = service_environment(service, plan, SHELL)
        assert {name: environment[name] for name in ("PATH", "HOME", "LANG")} == {
            name: SHELL[name] for name in ("PATH", "HOME", "LANG")
        }
        assert "AWS_SECRET_ACCESS_KEY" not in environment
        assert "HTTPS_PROXY" not in environment


def test_each_service_has_only_its_own_secrets(plan: StackPlan) -> None:
    environments = {service: "\n".join(service_environment(service, plan, SHELL).values()) for service in SERVICES}
    for name, value in plan.secrets.values.items():
        holders = {service for service, text in environments.items() if value in text}
        owner = name.split(".")[1 if name.startswith(("s3.", "database.")) else 0].removesuffix("-worker")
        allowed = SHARED.get(name) or ({"anonymization"} if name == "vault.key" else {owner} & set(SERVICES))
        assert holders <= allowed, name
    assert plan.secrets.values["quarantine.key"] in environments["ingestion"]
    assert plan.secrets.values["vault.key"] in environments["anonymization"]


def test_only_training_gets_the_hubs_token(plan: StackPlan) -> None:
    environments = {
        name: service_environment(name, plan, {"HF_TOKEN": "hf_secret"}) for name in ("training", "inference")
    }
    assert environments["training"]["HF_TOKEN"] == "hf_secret"
    assert "hf_secret" not in environments["inference"].values()


def test_the_registry_gets_only_a_digest_of_the_operators_key(plan: StackPlan) -> None:
    environment = service_environment("registry", plan, SHELL)
    assert environment["TAILOR_BOOTSTRAP_OPERATOR_KEY_SHA256"] == plan.secrets.operator_key_sha256


def test_only_services_that_need_them_get_a_database_and_a_store(plan: StackPlan) -> None:
    for service in SERVICES:
        environment = service_environment(service, plan, SHELL)
        assert ("TAILOR_DATABASE_URL" in environment) == (service in WITH_DATABASE)
        assert ("TAILOR_S3_SECRET_KEY" in environment) == bool(ACCESS[service])


def test_telemetry_is_off_in_every_service(plan: StackPlan) -> None:
    for service in SERVICES:
        assert service_environment(service, plan, SHELL).items() >= NOTHING_PHONES_HOME.items()


def test_services_reflect_their_contract_in_the_embedded_stack_and_not_by_default(
    plan: StackPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not ServiceSettings().rpc_reflection
    for service in SERVICES:
        monkeypatch.setenv("TAILOR_RPC_REFLECTION", service_environment(service, plan, SHELL)["TAILOR_RPC_REFLECTION"])
        assert ServiceSettings().rpc_reflection


def test_the_shells_thread_limits_apply(plan: StackPlan) -> None:
    assert service_environment("training", plan, SHELL | {"OMP_NUM_THREADS": "3"})["OMP_NUM_THREADS"] == "3"
    assert int(service_environment("console", plan, SHELL)["OMP_NUM_THREADS"]) == 1


def test_training_and_inference_share_one_compute_lock(plan: StackPlan) -> None:
    locks = {
        service_environment(service, plan, SHELL).get("TAILOR_COMPUTE_LOCK") for service in ("training", "inference")
    }
    assert locks == {str(plan.layout.compute_lock_file)}


def test_the_shared_settings_read_the_environment(plan: StackPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in service_environment("training", plan, SHELL).items():
        monkeypatch.setenv(name, value)
    settings = ServiceSettings()
    assert settings.kafka_bootstrap_servers == plan.ports.address("broker")
    assert settings.s3_endpoint == plan.ports.address("s3")
    assert settings.rpc_port == plan.ports["training-rpc"]
    assert settings.registry_address == plan.ports.address("registry-rpc")
    assert settings.identity_key_file.exists()
    assert settings.trust_file.exists()
    assert settings.database_url.get_secret_value().endswith("/training")
