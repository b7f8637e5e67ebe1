"""Malicious plain text, web pages, tables and data."""

import json
import zlib

from tests.integration.hostile.collection import BOMB, MIB, Files, adder

FILES: Files = {}
add = adder(FILES)

add("empty", "a.txt", lambda: b"")
add("zero-bytes", "a.txt", lambda: b"\0" * 100_000)
add("zero-byte-in-json", "a.json", lambda: b'{"a": "\0"}')
add("words-and-zero-bytes", "a.md", lambda: b"# words\n" + b"word\0" * 1_000)
add("odd-utf16", "a.txt", lambda: "words and more".encode("utf-16") + b"\x41")
add("lone-surrogates-utf16", "a.txt", lambda: b"\xff\xfe" + b"\x00\xd8" * 1_000)
add("impossible-utf32", "a.txt", lambda: b"\xff\xfe\0\0" + b"\xff\xff\xff\xff" * 100)
add("charset-that-is-none", "a.txt", lambda: b"Harmless words.", "text/plain; charset=x-no-such-charset-0")
add("charset-that-takes-long", "a.txt", lambda: b"words-" * 200_000, "text/plain; charset=punycode")
add("charset-that-unpacks", "a.txt", lambda: zlib.compress(b" " * 50 * MIB), "text/plain; charset=zlib_codec")
add("many-marks", "a.txt", ("a" + "\u0300\u0323" * 500_000).encode)
add("many-spaces", "a.txt", lambda: b" " * 5_000_000 + b"x")
add("many-characters", "a.txt", lambda: b"words " * 2_000_000)
add("bidirectional", "a.txt", "Harmless \u202e\u2066 words \u200b.".encode)
add("gzip-named-text", "a.txt", lambda: zlib.compress(b" " * 50 * MIB, wbits=31))
add("program-named-docx", "a.docx", lambda: b"MZ" + b"\x90\0" * 5_000)
add("picture-named-pdf", "a.pdf", lambda: b"\x89PNG\r\n\x1a\n" + b"\0" * 5_000)
add("page-named-json", "a.json", lambda: b"<html><script>alert(1)</script></html>")
add("rtf-unbalanced", "a.rtf", lambda: b"{\\rtf1" + b"{\\b" * 100_000)
add("rtf-without-a-name", "", lambda: b"{\\rtf1" + b"{\\object\\objdata d0cf11e0" * 10_000)


add("html-deep", "a.html", lambda: b"<div>" * 50_000 + b"Harmless words." + b"</div>" * 50_000)
add("html-never-closed", "a.html", lambda: b"<b><i>x" * 30_000)
add("html-deep-lists", "a.html", lambda: b"<ul><li>x" * 3_000)
add("html-deep-quotes", "a.html", lambda: b"<blockquote>x\n" * 3_000)
add(
    "html-many-attributes",
    "a.html",
    lambda: b"<p " + b" ".join(b"a%d=1" % n for n in range(200_000)) + b">Harmless words.</p>",
)
add("html-broken-declarations", "a.html", lambda: b"<html>" + b"<![if x]><!DOCTYPE [<!ENTITY a '" * 20_000)
add("html-unfinished-tags", "a.html", lambda: b"<html>" + b"<a" * 200_000)
add(
    "html-wide-cells",
    "a.html",
    lambda: b"<table><tr><td colspan=999999999>x</td></tr>" + b"<tr><td colspan=1000>y</td></tr>" * 5_000 + b"</table>",
)
add("html-far-list-number", "a.html", lambda: b"<ol start=" + b"9" * 10_000 + b"><li>Harmless words.</ol>")
add(
    "html-scripts",
    "a.html",
    lambda: (
        b'<html><script>steal()</script><a href="javascript:steal()">Harmless words.</a><img src=x onerror="steal()">'
    ),
)
add("html-entities", "a.html", (BOMB + "<html><p>&a9;</p>" + "&#x110000;&#-1;&#999999999999;" * 1_000).encode)
add(
    "html-huge-picture",
    "a.html",
    lambda: b"<html><img src='data:image/png;base64," + b"A" * 5_000_000 + b"'>Harmless words.",
)
add("csv-one-line", "a.csv", lambda: b"a," * 5_000_000)
add("csv-open-quote", "a.csv", lambda: b'a,b\n"' + b"x,\n" * 1_000_000)
add("csv-one-wide-row", "a.csv", lambda: b"a," * 50_000 + b"\n" + b"b\n" * 50_000)
add("csv-formulas", "a.csv", lambda: b'name,link\n"=cmd|\'/c calc\'!A1","=HYPERLINK(""http://evil.example"")"\n')
add("csv-quotes", "a.csv", lambda: b'"' * 3_000_001)
add("json-deep", "a.json", lambda: b"[" * 1_000_000)
add("json-deep-and-closed", "a.json", lambda: b'{"a":' * 500 + b"1" + b"}" * 500)
add("json-huge-number", "a.json", lambda: b"[" + b"9" * 1_000_000 + b"]")
add("json-many-lists", "a.json", lambda: b"[" + b"[]," * 3_000_000 + b"[]]")
add("json-surrogates", "a.json", lambda: b'{"prompt": "\\ud800 write", "answer": "\\udfff written"}')
add("json-cut", "a.json", lambda: b'{"a": "' + b"x" * 1_000_000)
add("json-columns", "a.json", lambda: json.dumps([{f"k{n}": n} for n in range(100_000)]).encode())
