"""Authorities of a stack's own, and the certificates that they sign: for the parts of the object store, and for services on Kubernetes."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tailor.local.secrets import write

# As long as the keys of identities are used, which have no end.
VALID = timedelta(days=3650)
USES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)


@dataclass(frozen=True)
class Authority:
    """A certificate authority (CA): its private key and its certificate, as RFC 5280 asks of both."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def create(cls, name: str) -> "Authority":
        """A new one."""
        key = ec.generate_private_key(ec.SECP256R1())
        uses = x509.KeyUsage(**{use: use in ("key_cert_sign", "crl_sign") for use in USES})
        builder = _builder(name, name, key.public_key(), key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        return cls(key, builder.add_extension(uses, critical=True).sign(key, hashes.SHA256()))

    @classmethod
    def load(cls, key: bytes, certificate: bytes) -> "Authority":
        """The one of two PEM files. Raises ValueError if they are anything else, or do not belong together."""
        loaded = serialization.load_pem_private_key(key, None)
        found = x509.load_pem_x509_certificate(certificate)
        if not isinstance(loaded, ec.EllipticCurvePrivateKey) or loaded.public_key() != found.public_key():
            raise ValueError("the key does not belong to the certificate")
        return cls(loaded, found)

    def issue(self, name: str, hosts: Sequence[str]) -> tuple[str, str]:
        """A new private key, and a certificate for servers under these DNS names and on this machine, as PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [*map(x509.DNSName, (*hosts, "localhost")), x509.IPAddress(IPv4Address("127.0.0.1"))]
        issuer = self.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
        builder = _builder(name, str(issuer), key.public_key(), self.key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return private_pem(key), pem(builder.sign(self.key, hashes.SHA256()))


def renew_certificates(directory: Path) -> None:
    """Create `ca.pem`, `store.pem` and `store.key` of the object store. The authority's private key is not stored."""
    authority = Authority.create("tailor-store-ca")
    key, certificate = authority.issue("tailor-store", ())
    write(directory / "store.key", key)
    write(directory / "store.pem", certificate)
    write(directory / "ca.pem", pem(authority.certificate))


def _builder(
    subject: str, issuer: str, public_key: ec.EllipticCurvePublicKey, issuer_key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + VALID)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def pem(certificate: x509.Certificate) -> str:
    """A certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def private_pem(key: ec.EllipticCurvePrivateKey) -> str:
    """A private key as PEM, not encrypted."""
    encoded = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return encoded.decode()
