"""Builds the service: the one place that chooses its real adapters."""

from services.console.adapters.openid import find_provider
from services.console.clients import connect, open_channels
from services.console.settings import Settings
from services.console.web.app import create_app
from services.console.web.server import HttpServer
from tailor.runtime import Runtime


def build(runtime: Runtime, settings: Settings) -> None:
    """Serve the pages. Does not wait for other services: a page names those that do not answer."""
    channels = open_channels(settings)
    for channel in channels.values():
        runtime.on_stop(channel.close)
    server = HttpServer(settings, create_app(settings, connect(channels), find_provider(settings)))
    runtime.spawn("http", server.run)
    runtime.wait_for("the web server", server.check_started)
    runtime.ready()
