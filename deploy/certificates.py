"""The certificates of the services on Kubernetes: one for each, signed by an authority of the installation's own.

`deploy.make_secrets` writes them to FOLDER/secrets/tls, and `deploy.secret_manifests` puts them into Secrets. An installation that has
cert-manager can let it fill the same Secrets, under the same names.
"""

from collections.abc import Sequence
from pathlib import Path

from cryptography import x509

from tailor.local.certificates import Authority, pem, private_pem
from tailor.local.layout import SERVICES
from tailor.local.secrets import write

CA, CA_KEY = "ca.pem", "ca.key"
NAMESPACE = "tailor"
# The further Services that lead to a service's pods (k8s/base/inference/replicas.yaml).
FURTHER = {"inference": ("inference-replicas", "inference-sticky")}


def dns_names(service: str, namespace: str) -> list[str]:
    """The names under which a service is called in a cluster, from its own namespace and from others."""
    return [
        f"{name}{suffix}"
        for name in (service, *FURTHER.get(service, ()))
        for suffix in ("", f".{namespace}", f".{namespace}.svc", f".{namespace}.svc.cluster.local")
    ]


def make_certificates(secrets: Path, namespace: str = NAMESPACE) -> None:
    """Create the missing files under `secrets/tls`, and those that are for other names. Idempotent; remove the folder for a new authority.

    Raises ValueError if a file that is there is no certificate.
    """
    folder = secrets / "tls"
    folder.mkdir(mode=0o700, exist_ok=True)
    if (folder / CA).exists():
        authority = Authority.load((folder / CA_KEY).read_bytes(), (folder / CA).read_bytes())
    else:
        authority = Authority.create("tailor-ca")
        write(folder / CA_KEY, private_pem(authority.key))
        write(folder / CA, pem(authority.certificate))
    for service in SERVICES:
        names = dns_names(service, namespace)
        if not _is_signed(folder / f"{service}.pem", authority, names):
            key, certificate = authority.issue(service, names)
            write(folder / f"{service}.key", key)
            # The last: what is cut off before is made again.
            write(folder / f"{service}.pem", certificate)


def _is_signed(path: Path, authority: Authority, names: Sequence[str]) -> bool:
    if not path.exists():
        return False
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    given = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    key = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    ours = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    return {*names} <= {*given.get_values_for_type(x509.DNSName)} and key == ours
