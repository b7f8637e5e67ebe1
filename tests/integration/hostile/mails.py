"""Malicious mails and attachments."""

import base64
import random
import struct
from email.message import EmailMessage

from tests.integration.hostile.archives import WORDS, in_docx, in_sheet, paragraph, zeros
from tests.integration.hostile.collection import BOMB, OLE, Files, adder
from tests.unit.ingestion.compound import make_compound, make_msg

FILES: Files = {}
add = adder(FILES)


def mail(words: bytes, *headers: bytes) -> bytes:
    return b"\r\n".join([b"From: a@firm.example", b"Subject: words", *headers, b"", words])


def with_attachment(data: bytes, name: str) -> bytes:
    message = EmailMessage()
    message["From"], message["Subject"] = "a@firm.example", "Harmless words"
    message.set_content("Harmless words.")
    message.add_attachment(data, maintype="application", subtype="octet-stream", filename=name)
    return message.as_bytes()


def nested_parts(depth: int) -> bytes:
    parts = b"".join(
        b'Content-Type: multipart/mixed; boundary="b%d"\r\n\r\n--b%d\r\n' % (level, level) for level in range(depth)
    )
    return b"From: a@firm.example\r\nSubject: words\r\n" + parts + b"\r\nHarmless words.\r\n"


def many_parts(count: int, head: bytes) -> bytes:
    return mail(
        b"".join(b"--b\r\n" + head + b"\r\n\r\nwords\r\n" for _ in range(count)),
        b'Content-Type: multipart/mixed; boundary="b"',
    )


def nested_mails(depth: int) -> bytes:
    return b"From: a@firm.example\r\nContent-Type: message/rfc822\r\n\r\n" * depth + mail(b"Harmless words.")


add("eml-deep-parts", "a.eml", lambda: nested_parts(5_000))
add("eml-deep-parts-within-bounds", "a.eml", lambda: nested_parts(60))
add("eml-deep-mails", "a.eml", lambda: nested_mails(2_000))
add("eml-mails-four-deep", "a.eml", lambda: nested_mails(5))
add("eml-many-attachments", "a.eml", lambda: many_parts(5_000, b"Content-Disposition: attachment; filename=a.txt"))
add("eml-many-bodies", "a.eml", lambda: many_parts(5_000, b"Content-Type: text/html"))
add("eml-long-header", "a.eml", lambda: mail(b"Harmless words.", b"To: " + b"a@b.example, " * 300_000))
add(
    "eml-comments-in-header",
    "a.eml",
    lambda: mail(
        b"Harmless words.",
        b"To: " + b"(" * 500_000,
        b"Date: " + b"(" * 100_000,
        b"Content-Type: text/plain; " + b'x="' * 50_000,
    ),
)
add("eml-encoded-words", "a.eml", lambda: mail(b"Harmless words.", b"Cc: " + b"=?utf-8?q?=?" * 100_000))
add(
    "eml-charset-that-is-none",
    "a.eml",
    lambda: mail(b"Harmless words.", b'Content-Type: text/plain; charset="\0\xff none"'),
)
add("eml-broken-base64", "a.eml", lambda: mail(b"!!!not base64===\xff", b"Content-Transfer-Encoding: base64"))
add("eml-boundary-missing", "a.eml", lambda: mail(b"words", b"Content-Type: multipart/mixed"))
add(
    "eml-boundary-of-wildcards",
    "a.eml",
    lambda: mail(b"--" + b"a" * 100_000, b'Content-Type: multipart/mixed; boundary="(a+)+$"'),
)
add("eml-with-bomb", "a.eml", lambda: with_attachment(zeros(WORDS, 220), "a.docx"))
add("eml-with-entity-bomb", "a.eml", lambda: with_attachment(in_docx(paragraph("&a9;"), BOMB), "a.docx"))
add("eml-attachment-path", "a.eml", lambda: with_attachment(b"Harmless words.", "../../../etc/cron.d/evil.txt"))
add("eml-many-bombs", "a.eml", lambda: many_attached(30))
add(
    "eml-external-body",
    "a.eml",
    lambda: mail(b"words", b'Content-Type: message/external-body; access-type=local-file; name="/etc/passwd"'),
)
add("eml-uuencoded", "a.eml", lambda: mail(b"begin 644 a\n" + b"M" * 500_000, b"Content-Transfer-Encoding: x-uuencode"))
add("eml-without-headers", "a.eml", lambda: b"\r\n\r\nwords")


def many_attached(count: int) -> bytes:
    message = EmailMessage()
    message["From"] = "a@firm.example"
    bomb = in_sheet("".join(f'<row r="{n}"><c r="A{n}"><v>{n}</v></c></row>' for n in range(1, 60_000)))
    message.set_content("Harmless words.")
    for number in range(count):
        message.add_attachment(bomb, maintype="application", subtype="octet-stream", filename=f"{number}.xlsx")
    return message.as_bytes()


def nested_msg(depth: int) -> bytes:
    message: dict[str, object] = {"subject": "innermost", "body": "Innermost words."}
    for level in range(depth):
        message = {"subject": f"level {level}", "body": "Harmless words.", "attachments": [("inner", message)]}
    return make_msg(message)


def changed(data: bytes, place: int, value: bytes) -> bytes:
    return data[:place] + value + data[place + len(value) :]


def msg() -> bytes:
    return make_msg({"subject": "words", "body": "Harmless words. " * 1_000})


add("msg-cut", "a.msg", lambda: msg()[:2_000])
add(
    "msg-noise",
    "a.msg",
    lambda: OLE + "__properties_version1.0".encode("utf-16-le") + random.Random(2).randbytes(50_000),
)
add("msg-header-noise", "a.msg", lambda: changed(msg(), 24, b"\xff" * 60))
add("msg-sectors-in-a-circle", "a.msg", lambda: msg()[:-512] + b"".join(struct.pack("<I", 0) for _ in range(128)))
add("msg-directory-in-a-circle", "a.msg", lambda: changed(msg(), 512 + 128 + 68, struct.pack("<III", 1, 1, 1)))
add("msg-streams-of-any-size", "a.msg", lambda: changed(msg(), 512 + 128 + 120, b"\xff\xff\xff\x7f"))
add(
    "msg-many-attachments",
    "a.msg",
    lambda: make_msg({"body": "words", "attachments": [(f"{n}.txt", b"x") for n in range(2_000)]}),
)
add("msg-deep", "a.msg", lambda: nested_msg(40))
add("msg-with-bomb", "a.msg", lambda: make_msg({"body": "words", "attachments": [("a.docx", zeros(WORDS, 220))]}))
add("msg-without-properties", "a.msg", lambda: make_compound({"x__properties_version1.0": b"", "a": b"b"}))
add("msg-base64", "a.msg", lambda: base64.b64encode(msg()))
add("old-word", "a.doc", lambda: make_compound({"WordDocument": b"x" * 5_000}))
