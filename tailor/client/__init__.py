"""The typed client that callers install: `from tailor.client import TailorClient`."""

from tailor.client.answers import Answer, Message, Piece, Provenance, ServedSpecialist, Usage
from tailor.client.channel import Tls
from tailor.client.client import TailorClient

__all__ = ["Answer", "Message", "Piece", "Provenance", "ServedSpecialist", "TailorClient", "Tls", "Usage"]
