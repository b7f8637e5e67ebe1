"""The one place that chooses real adapters."""

from services.console.adapters.clients import connect
from services.console.settings import Settings
from services.console.web.app import create_app
from services.console.web.server import HttpServer
from tailor.runtime import Runtime


def build(runtime: Runtime, settings: Settings) -> None:
    """Serve the pages; a service that is not there yet is shown as such, so none is waited for."""
    services, channels = connect(settings)
    for channel in channels:
        runtime.on_stop(channel.close)
    server = HttpServer(settings, create_app(settings, services))
    runtime.spawn("http", server.run)
    runtime.wait_for("the web server", server.check_started)
    runtime.ready()
