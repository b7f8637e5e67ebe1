"""The Secrets of the prod overlay, from the folder that `deploy.make_secrets` fills: one entry for each Secret that a pod names.

`python -m deploy.secret_manifests FOLDER | kubectl apply --server-side -f -` creates them. `--external STORE` prints ExternalSecrets in
their place, without values: the secret store has an entry of the same name, with the same keys, for each. `--values` prints these entries
as JSON, to fill the store. The administrators' Secrets (`init-topics`, `init-databases`, `init-buckets`) are not among them: your stores
have administrators already.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from deploy.certificates import CA, NAMESPACE
from deploy.init.credentials import load_credentials
from tailor.local.layout import SERVICES

WORKER = "training-worker"
WORKER_SECRET = f"tailor-{WORKER}"
TRUST = "tailor-trust"
# The authority's certificate, for callers and gateways: an Ingress takes a Secret, a Gateway a ConfigMap.
AUTHORITY = "tailor-ca"
REFRESH = "1h"


def values(folder: Path) -> dict[str, dict[str, str]]:
    """The keys and values of each Secret by its name. Raises SystemExit if `FOLDER/secrets` is not there."""
    secrets = folder / "secrets"
    if not (secrets / "tls" / CA).exists():
        raise SystemExit(
            f"There are no secrets in {secrets}, or no certificates. Create them: python -m deploy.make_secrets {folder}"
        )
    authority = _read(secrets / "tls" / CA)
    entries: dict[str, dict[str, str]] = {}
    for service in SERVICES:
        lines = (secrets / f"{service}.env").read_text(encoding="utf-8").splitlines()
        entries[f"tailor-{service}"] = dict(line.split("=", 1) for line in lines)
        entries[f"tailor-{service}-identity"] = {"identity.pem": _read(secrets / f"{service}.pem")}
        entries[f"tailor-{service}-tls"] = {
            "tls.crt": _read(secrets / "tls" / f"{service}.pem"),
            "tls.key": _read(secrets / "tls" / f"{service}.key"),
            "ca.crt": authority,
        }
    key = load_credentials(secrets / "stores.json")[WORKER]
    entries[WORKER_SECRET] = {
        "identity.pem": _read(secrets / f"{WORKER}.pem"),
        "trust.json": _read(secrets / "trust.json"),
        "ca.pem": authority,
        "s3-access-key": key.s3_access_key,
        "s3-secret-key": key.s3_secret_key,
    }
    entries[AUTHORITY] = {"ca.crt": authority}
    entries["init-stores"] = {"stores.json": _read(secrets / "stores.json")}
    return entries


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def manifests(folder: Path, namespace: str, workers_namespace: str, store: str = "") -> Iterator[dict[str, Any]]:
    """The Secrets, or with a ClusterSecretStore the ExternalSecrets, and the ConfigMaps with public keys and with the authority."""
    for name, entries in values(folder).items():
        place = {"name": name, "namespace": workers_namespace if name == WORKER_SECRET else namespace}
        if not store:
            yield {"apiVersion": "v1", "kind": "Secret", "metadata": place, "stringData": entries}
            continue
        yield {
            "apiVersion": "external-secrets.io/v1",
            "kind": "ExternalSecret",
            "metadata": place,
            "spec": {
                "refreshInterval": REFRESH,
                "secretStoreRef": {"kind": "ClusterSecretStore", "name": store},
                "target": {"name": name},
                "dataFrom": [{"extract": {"key": name}}],
            },
        }
    public = {
        TRUST: {"trust.json": _read(folder / "secrets" / "trust.json")},
        AUTHORITY: {"ca.crt": _read(folder / "secrets" / "tls" / CA)},
    }
    for name, data in public.items():
        metadata = {"name": name, "namespace": namespace}
        yield {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def main() -> None:
    """Print what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m deploy.secret_manifests", description="Print the Secrets of the prod overlay."
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--namespace", default=NAMESPACE)
    parser.add_argument("--workers-namespace", help="with components/workers-namespace: tailor-workers")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--external", default="", metavar="STORE", help="ExternalSecrets of this ClusterSecretStore")
    kind.add_argument("--values", action="store_true", help="the entries as JSON, by name")
    arguments = parser.parse_args()
    if arguments.values:
        sys.stdout.write(json.dumps(values(arguments.folder), indent=1) + "\n")
        return
    workers = arguments.workers_namespace or arguments.namespace
    documents = manifests(arguments.folder, arguments.namespace, workers, arguments.external)
    yaml.safe_dump_all(documents, sys.stdout, sort_keys=False)


if __name__ == "__main__":
    main()
