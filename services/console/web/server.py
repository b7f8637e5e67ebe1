"""uvicorn in a thread of the service's process."""

import threading

import uvicorn
from starlette.types import ASGIApp

from services.console.settings import Settings
from tailor.errors import Reason, Unavailable
from tailor.rpc.certificates import CertificateFiles, renewal
from tailor.slow_requests import TimedProtocol


class HttpServer:
    """Serves the application until it is stopped."""

    def __init__(self, settings: Settings, app: ASGIApp) -> None:
        certificate, key = settings.tls_certificate_file, settings.tls_key_file
        config = uvicorn.Config(
            app,
            host=settings.http_host,
            port=settings.http_port,
            http=TimedProtocol,
            # uvicorn's log could contain addresses and, on a fault, values; the console's own log contains neither.
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            proxy_headers=bool(settings.http_trusted_proxies),
            forwarded_allow_ips=settings.http_trusted_proxies or None,
            ssl_certfile=certificate if certificate and key else None,
            ssl_keyfile=key if certificate and key else None,
            timeout_graceful_shutdown=3,
        )
        if certificate and key:
            config.callback_notify = renewal(CertificateFiles(certificate, key), lambda: config.ssl)
        self._server = uvicorn.Server(config)

    def run(self, stop: threading.Event) -> None:
        """Serve until `stop` is set. Blocks."""
        threading.Thread(target=self._stop_later, args=(stop,), name="http-stop", daemon=True).start()
        self._server.run()

    def _stop_later(self, stop: threading.Event) -> None:
        stop.wait()
        self._server.should_exit = True

    def check_started(self) -> None:
        """Raises Unavailable until the server accepts connections."""
        if not self._server.started:
            raise Unavailable(Reason.HTTP_NOT_STARTED, "The web server does not accept connections yet.")
