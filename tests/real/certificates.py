"""A CA, a broker's certificate for this machine, and clients' certificates, as PEM files."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

ISSUER = "Test CA"


@dataclass(frozen=True)
class Certificates:
    """The files in one folder. `broker` holds key and certificate together, as Kafka reads a keystore of type PEM."""

    folder: Path

    @property
    def ca(self) -> Path:
        """The CA's certificate."""
        return self.folder / "ca.pem"

    @property
    def broker(self) -> Path:
        """The broker's key and certificate."""
        return self.folder / "broker.pem"

    def certificate(self, name: str) -> Path:
        """A client's certificate."""
        return self.folder / f"{name}.crt"

    def key(self, name: str) -> Path:
        """A client's key."""
        return self.folder / f"{name}.key"


def make_certificates(folder: Path, clients: Sequence[str], hosts: Sequence[str] = ()) -> Certificates:
    """Make all of them. Each client's subject is its name. They are also those of servers at this machine and at `hosts`."""
    folder.mkdir(parents=True)
    files = Certificates(folder)
    ca_key = _key()
    ca = _sign(ISSUER, ca_key, ca_key, is_ca=True)
    files.ca.write_bytes(_pem(ca))
    broker_key = _key()
    files.broker.write_bytes(_private(broker_key) + _pem(_sign("localhost", broker_key, ca_key, hosts)))
    for name in clients:
        key = _key()
        files.key(name).write_bytes(_private(key))
        files.certificate(name).write_bytes(_pem(_sign(name, key, ca_key, hosts)))
    return files


def _key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _sign(
    name: str, key: rsa.RSAPrivateKey, issuer_key: rsa.RSAPrivateKey, hosts: Sequence[str] = (), *, is_ca: bool = False
) -> x509.Certificate:
    now = datetime.now(UTC)
    names = [*map(x509.DNSName, ("localhost", *hosts)), x509.IPAddress(ip_address("127.0.0.1"))]
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ISSUER)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=2))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
    )
    return builder.sign(issuer_key, hashes.SHA256())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private(key: rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
