"""A server's certificate and key, read again when their files change: cert-manager replaces them weeks before they end."""

import ssl
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from tailor.logging import get_logger

log = get_logger(__name__)


@dataclass(frozen=True)
class Pem:
    """The contents of the files; `client_ca` is None if callers need no certificate."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        """As gRPC takes it."""
        return grpc.ssl_server_certificate_configuration([(self.key, self.certificate)], self.client_ca)


class CertificateFiles:
    """The files of a server. Thread-safe."""

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None = None) -> None:
        self.certificate = certificate
        self.key = key
        self._client_ca = client_ca
        self._lock = threading.Lock()
        self._stamp: tuple[tuple[int, int, int], ...] = ()

    def read(self) -> Pem:
        """The files as they are. Raises OSError if one cannot be read."""
        with self._lock:
            self._stamp = self._make_stamp()
            return self._read()

    def read_changed(self) -> Pem | None:
        """The files if they have changed since they were last read; None if not, and while certificate and key do not fit together."""
        with self._lock:
            try:
                stamp = self._make_stamp()
                if stamp == self._stamp:
                    return None
                pem = self._read()
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.certificate, self.key)
                # They were not replaced meanwhile: what fits together is what was read.
                if stamp != self._make_stamp():
                    return None
            except OSError as error:
                log.warning("certificate not renewed", error=type(error).__name__)
                return None
            self._stamp = stamp
            log.info("certificate renewed")
            return pem

    def _read(self) -> Pem:
        client_ca = self._client_ca.read_bytes() if self._client_ca else None
        return Pem(self.certificate.read_bytes(), self.key.read_bytes(), client_ca)

    def _make_stamp(self) -> tuple[tuple[int, int, int], ...]:
        paths = [path for path in (self.certificate, self.key, self._client_ca) if path is not None]
        # A Secret's volume is replaced by a link to new files.
        return tuple((status.st_ino, status.st_mtime_ns, status.st_size) for status in (path.stat() for path in paths))


def server_credentials(files: CertificateFiles) -> grpc.ServerCredentials:
    """gRPC's credentials, which look for new files at each handshake. Raises OSError if a file cannot be read now."""
    pem = files.read()

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        changed = files.read_changed()
        return changed.configuration() if changed else None

    # None keeps the certificate; the stubs do not know that.
    return grpc.dynamic_ssl_server_credentials(
        pem.configuration(),
        fetch,  # type: ignore[arg-type]
        require_client_authentication=pem.client_ca is not None,
    )


def renewal(
    files: CertificateFiles, context: Callable[[], ssl.SSLContext | None]
) -> Callable[[], Coroutine[Any, Any, None]]:
    """A callback for uvicorn's `callback_notify`, every half minute in its own thread: new connections get a new certificate.

    The authority that signs callers' certificates is not renewed. Raises OSError if a file cannot be read now.
    """
    files.read()

    async def renew() -> None:
        current = context()
        if current is not None and files.read_changed() is not None:
            try:
                current.load_cert_chain(files.certificate, files.key)
            except OSError as error:
                log.warning("certificate not renewed", error=type(error).__name__)

    return renew
