"""Mails: the subject as heading, sender and receivers as lines, then the words."""

import email
import email.policy
from email.message import EmailMessage
from email.utils import parsedate_to_datetime

from services.ingestion.adapters.formats.office import html_to_markdown
from services.ingestion.adapters.formats.text import decode
from services.ingestion.domain import File, Parsed, Reason, Rejected, clean

SHOWN = ("From", "To", "Cc", "Date")


def parse_mail(file: File) -> Parsed:
    """Markdown of a mail; attachments are left out."""
    message = email.message_from_bytes(file.data, policy=email.policy.default)
    if not message.keys():
        raise Rejected(Reason.CORRUPT, "The mail has no headers; export it again.", "eml")
    words = _words(message)
    if not any(letter.isalnum() for letter in words):
        raise Rejected(Reason.NO_TEXT, "The mail has no words of its own; publish its attachments.", "eml")
    subject = " ".join(_header(message, "Subject").split())
    lines = [f"{name}: {value}" for name in SHOWN if (value := " ".join(_header(message, name).split()))]
    heading = [f"# {subject}"] if subject else []
    return Parsed(clean("\n\n".join([*heading, "\n".join(lines), words])), "eml")


def _header(message: EmailMessage, name: str) -> str:
    try:
        value = str(message[name] or "")
    except (ValueError, LookupError, IndexError, AttributeError):
        return ""
    if name != "Date":
        return value
    try:
        return parsedate_to_datetime(value).strftime("%-d %B %Y")
    except (ValueError, TypeError):
        return value


def _words(message: EmailMessage) -> str:
    part = message.get_body(preferencelist=("plain", "html"))
    if part is None:
        return ""
    raw = part.get_payload(decode=True)
    if not isinstance(raw, bytes):
        return ""
    text = decode(raw, str(part.get_content_charset() or ""))
    return html_to_markdown(text) if part.get_content_subtype() == "html" else text
