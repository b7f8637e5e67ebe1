"""Pages of several programs keep their content, and what is left out is counted."""

import pytest

from services.ingestion.domain import File, ParsedText
from services.ingestion.formats.office import html_to_markdown
from services.ingestion.formats.read import read

BODY = """<p>The ledger keeps one line for each payment, with its day, its amount and the account that it leaves. A payment that
fails is written a second time, and the clerk who saw it signs the line.</p>
<h3>Reading a line</h3>
<pre>ledger --account 12 | sort
ledger --all</pre>
<ul><li>Day: when the bank booked it, not when it was sent.</li><li>Amount: in the currency of the account.</li></ul>
<table><tr><th>code</th><th>meaning</th></tr><tr><td>P</td><td>paid in full</td></tr><tr><td>F</td><td>failed once</td></tr></table>
<p>See <a href="other.html">the second part</a> for what happens at the end of a year, when all lines are closed.</p>"""
KEPT = (
    "The ledger keeps one line for each payment",
    "### Reading a line",
    "ledger --account 12 | sort\nledger --all",
    "- Day: when the bank booked it",
    "| code | meaning |",
    "| F | failed once |",
    "[the second part](other.html)",
)
SPHINX = f"""<div class="related" role="navigation"><h3>Navigation</h3><ul><li><a href="i.html">index</a></li>
<li><a accesskey="N" href="n.html">next</a></li><li><a href="p.html">Ledger 1.2 documentation</a></li></ul></div>
<div class="document"><div class="body" role="main"><section id="l"><h1>Ledger<a class="headerlink" href="#l">¶</a></h1>{BODY}
<aside class="footnote">[1] As the bank writes it.</aside></section></div></div>
<div class="sphinxsidebar" role="navigation"><h3><a href="i.html">Table of Contents</a></h3><ul><li><a href="#l">Ledger side</a></li></ul></div>
<div class="footer" role="contentinfo">Created using Sphinx 5.3.0.</div>"""
DOCBOOK = f"""<div class="navheader"><table><tr><th colspan="3">Chapter 4. Ledger head</th></tr><tr><td><a accesskey="p" href="a.html">Prev</a></td>
<th>Part II. Books</th><td><a accesskey="n" href="b.html">Next</a></td></tr></table><hr></div>
<div class="chapter"><h2 class="title">Chapter 4. Ledger</h2><div class="toc"><p><b>Table of Contents</b></p><dl><dt><a href="#r">4.1. Reading</a></dt>
<dt><a href="#w">4.2. Writing</a></dt><dt><a href="#c">4.3. Closing</a></dt></dl></div>{BODY}</div>
<div class="navfooter"><table><tr><td><a accesskey="p" href="a.html">Prev</a></td><td><a accesskey="u" href="u.html">Up</a></td>
<td><a accesskey="n" href="b.html">Next</a></td></tr><tr><td>Chapter 3. Cash</td><td><a accesskey="h" href="i.html">Home</a></td><td>Chapter 5. Tax</td></tr></table></div>"""
TEXINFO = f"""<div class="section"><div class="header"><p>Next: <a accesskey="n" href="w.html" rel="next">Writing</a>, Up:
<a accesskey="u" href="b.html" rel="up">Books</a> &nbsp; [<a href="toc.html" rel="contents">Contents</a>][<a href="i.html" rel="index">Index</a>]</p></div>
<h2>Ledger</h2>{BODY}</div>"""
WORDPRESS = f"""<div id="page"><header class="site-header"><p class="site-title"><a href="/">Firm and Sons</a></p></header>
<nav class="main-navigation"><ul><li><a href="/a">About us</a></li><li><a href="/c">Careers</a></li></ul></nav>
<div id="content"><article class="post"><header class="entry-header"><h1 class="entry-title">Ledger</h1></header>
<div class="entry-content">{BODY}</div></article></div><aside id="secondary" class="widget-area"><h2>Recent posts</h2><ul>
<li><a href="/1">Ten years of books</a></li><li><a href="/2">A new office</a></li></ul></aside>
<footer class="site-footer">Firm and Sons, all rights reserved</footer></div>"""
OLD = f"""<center><a href="/">Start</a> | <a href="/news">All our news</a> | <a href="/contact">How to reach us</a></center>
<table><tr><td><a href="/a">Accounts we keep</a><br><a href="/b">Books we sell</a><br><a href="/c">Clerks we train</a><br><a href="/d">Deadlines</a></td>
<td><h1>Ledger</h1>{BODY}</td></tr></table>"""
WORD = (
    f"""<div class="WordSection1"><p class="MsoTitle">Ledger</p>{BODY}<p class="MsoFooter">Ledger, page 1</p></div>"""
)
PAGES = {"sphinx": SPHINX, "docbook": DOCBOOK, "texinfo": TEXINFO, "wordpress": WORDPRESS, "old": OLD, "word": WORD}
AROUND = (
    *(
        "Navigation",
        "Sphinx",
        "Ledger side",
        "¶",
        "Prev",
        "Next",
        "Home",
        "Part II",
        "Chapter 5",
        "Up:",
        "Contents",
        "4.2. Writing",
    ),
    *("Careers", "Firm and Sons", "Recent posts", "A new office", "All our news", "Clerks we train"),
)


def parse(body: str, title: str = "") -> ParsedText:
    return read(File(f"<html><head><title>{title}</title></head><body>{body}</body></html>".encode(), "page.html"))


@pytest.mark.parametrize("name", PAGES)
def test_a_page_keeps_its_body_and_loses_what_stands_around_it(name: str) -> None:
    parsed = parse(PAGES[name])
    assert [part for part in KEPT if part not in parsed.text] == []
    assert "Ledger" in parsed.text.splitlines()[0]
    assert [word for word in AROUND if word in parsed.text] == []


def test_what_is_skipped_of_a_page_is_counted_without_blanks() -> None:
    assert parse(f'<nav><a href="/a">About us</a></nav>{BODY}').removed == {"navigation": len("Aboutus")}
    assert set(parse(DOCBOOK).removed) == {"navigation", "contents"}
    assert parse(BODY).removed == {}


def test_a_footnote_and_the_head_of_an_article_belong_to_the_content() -> None:
    assert "As the bank writes it." in parse(SPHINX).text
    assert "# Ledger" in parse(WORDPRESS).text


def test_the_only_title_of_a_page_survives_its_header() -> None:
    text = parse(f'<header><h1>Ledger</h1><a href="/">Firm</a></header>{BODY}').text
    assert text.startswith("# Ledger\n\nThe ledger keeps") and "Firm" not in text


@pytest.mark.parametrize(
    "page",
    [
        "<header><p>All that this page says occurs in its header, in two long sentences. This is the second of them.</p></header>",
        "<div>" + "".join(f'<p><a href="{day}.html">Minutes of day {day}</a></p>' for day in range(9)) + "</div>",
        "<ul>" + "".join(f'<li><a href="{day}.html">Minutes of day {day}</a></li>' for day in range(9)) + "</ul>",
        "<table><tr><th>code</th><th>page</th></tr>"
        + "".join(
            f'<tr><td><a href="{row}">A{row}</a></td><td><a href="{row}">Account {row}</a></td></tr>'
            for row in range(9)
        )
        + "</table>",
        "<p>Short.</p>",
        "<p>Dear Ms Hale,</p><p>the invoice is paid.</p><p>Yours, <a href='mailto:a@firm.example'>Ann</a></p>",
    ],
)
def test_a_page_that_is_little_else_keeps_its_text(page: str) -> None:
    assert parse(page).text == read(File(f"<body>{page}</body>".encode(), "page.html")).text
    assert parse(page).removed == {}


def test_a_table_of_links_within_a_page_is_content() -> None:
    rows = "".join(
        f'<tr><td><a href="{row}">P{row}</a></td><td><a href="{row}">Account {row}</a></td></tr>' for row in range(9)
    )
    assert "Account 8" in parse(f"<h1>Ledger</h1>{BODY}<table>{rows}</table>").text


@pytest.mark.parametrize(
    "line",
    [
        '<table><tr><td>[<a href="a">&lt;&lt;</a>]</td><td>[<a href="b">&gt;</a>]</td><td>[<a href="c">Up</a>]</td></tr></table>',
        '<div><a href="a">Zurück</a> | <a href="b">Weiter</a></div>',
        '<p><a rel="alternate" hreflang="fr" href="fr">fr</a> <a rel="alternate" hreflang="es" href="es">es</a></p>',
    ],
)
def test_a_line_of_steps_is_known_by_what_its_links_are_or_show(line: str) -> None:
    assert parse(line + BODY).text == parse(BODY).text


def test_a_word_of_an_index_is_not_a_step() -> None:
    assert (
        "next"
        in parse(
            f'<h1>Loops</h1>{BODY}<table><tr><td><a href="#n">next</a></td><td><a href="#n">Looping</a></td></tr></table>'
        ).text
    )


def test_a_mail_in_html_is_kept_whole() -> None:
    mail = f"From: a@firm.example\nSubject: Gates\nContent-Type: text/html\n\n<footer>Ann, Firm and Sons</footer>{BODY}"
    parsed = read(File(mail.encode(), "mail.eml"))
    assert "Ann, Firm and Sons" in parsed.text and parsed.removed == {}


def test_counts_of_an_attachment_are_those_of_its_mail() -> None:
    mail = (
        "From: a@firm.example\nSubject: Gates\nContent-Type: multipart/mixed; boundary=X\n\n--X\n\nHere it is.\n--X\n"
        f"Content-Type: text/html\nContent-Disposition: attachment; filename=a.html\n\n<nav>Menu</nav>{BODY}\n--X--\n"
    )
    assert read(File(mail.encode(), "mail.eml")).removed == {"navigation": 4}


@pytest.mark.parametrize(
    ("title", "body", "first"),
    [
        ("Rest of drivers", "<p>Drivers rest.</p>", "# Rest of drivers"),
        ("Rest of drivers", "<h3>Rest</h3><p>Drivers rest.</p>", "### Rest"),
        ("Rest of drivers", "<h3>Summary</h3><p>Drivers rest.</p>", "# Rest of drivers"),
        ("Firm | Rest", "<h1>Drivers</h1><p>They rest.</p>", "# Drivers"),
        ("Untitled Document", "<p>Drivers rest.</p>", "Drivers rest."),
        ("Microsoft Word - rest.doc", "<p>Drivers rest.</p>", "Drivers rest."),
        ("rest.html", "<p>Drivers rest.</p>", "Drivers rest."),
        ("", "<p>Drivers rest.</p>", "Drivers rest."),
    ],
)
def test_the_title_of_a_page_stands_above_a_text_without_one(title: str, body: str, first: str) -> None:
    assert parse(body, title).text.splitlines()[0] == first


def test_a_page_of_nested_elements_is_read() -> None:
    page = "<div>" * 3000 + BODY + "</div>" * 3000
    assert "The ledger keeps one line" in parse(page).text


def test_the_same_page_is_read_the_same_again() -> None:
    assert parse(SPHINX) == parse(SPHINX)


def test_a_link_stays_on_one_line_without_what_appears_over_it() -> None:
    page = '<p>It uses the <a href="https://a.example/lsm" title="6.1.\nLSM">Linux Security\nModules (LSM)\nFramework</a> for it.</p>'
    assert (
        html_to_markdown(page).strip()
        == "It uses the [Linux Security Modules (LSM) Framework](https://a.example/lsm) for it."
    )


def test_the_explanation_of_a_term_is_a_paragraph_under_it() -> None:
    page = "<dl><dt><code>name</code></dt><dd><p>The name of the table.</p><p>It may be long.</p></dd><dt>new</dt><dd>All of it.</dd></dl>"
    assert html_to_markdown(page).strip() == "`name`\n\nThe name of the table.\n\nIt may be long.\n\nnew\n\nAll of it."


def test_a_line_that_ends_within_a_paragraph_of_a_page_does_not_end_in_the_text() -> None:
    page = "<p>The packages are\n  built with <code>make\n all</code>, as\nthe owner<br>says.</p><pre>make\nall</pre>"
    assert (
        html_to_markdown(page).strip()
        == "The packages are built with `make all`, as the owner\nsays.\n\n```\nmake\nall\n```"
    )
