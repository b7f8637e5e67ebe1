"""Typed clients for callers: `from tailor.client import TailorClient, AsyncTailorClient`."""

from tailor.client.answers import (
    Answer,
    Draft,
    FeedbackReceipt,
    LikelyToken,
    Message,
    OutcomeReceipt,
    Piece,
    Provenance,
    ServedSpecialist,
    TokenLogProbability,
    Usage,
)
from tailor.client.async_client import AsyncTailorClient
from tailor.client.client import TailorClient
from tailor.client.requests import Options, Verdict
from tailor.rpc.channel import Tls

__all__ = [
    "Answer",
    "AsyncTailorClient",
    "Draft",
    "FeedbackReceipt",
    "LikelyToken",
    "Message",
    "Options",
    "OutcomeReceipt",
    "Piece",
    "Provenance",
    "ServedSpecialist",
    "TailorClient",
    "Tls",
    "TokenLogProbability",
    "Usage",
    "Verdict",
]
