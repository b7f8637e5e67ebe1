"""What is prose, and what only stands around it."""

import pytest

from services.synthetic.rows.prose import has_prose


@pytest.mark.parametrize(
    "text",
    [
        "Overflow . . . . . . . . . . . . . . . . . . . . 12\nUnderflow of the second kind . . . . . . . . 14",
        "1.2 The second of many chapters........17",
        "[Prev](a.html) | [Up](b.html) | [Home](index.html) | [Next chapter of it](c.html)",
        "| 4.1. Grundlagen | | |\n|---|---|---|",
        "| [4.1. Grundlagen der Arbeit](a.html) | [4.2. Einrichtung der Arbeit](b.html) |\n|---|---|",
        "**Table 53.51. The columns of pg_statistic as stored**",
        "## The heading of a section that nothing follows",
        "```\nthis is only code and no prose at all\n```",
        "$ apt-get install gdb gdb-doc and its friends",
        "See https://example.org/a/b/c/d and https://example.org/e/f",
        "12 14 16 18 20",
        "- qcow2\n- see Section 9.7\n- if its process id is the same as $\n- the return status is 127",
        "- Wenn Sie; Debian-Quellverzeichnis\n- Das Aktualisieren",
        "In “44.6. Trigger Functions”:\n\nThe information is passed to the function body in these variables:",
        "Die Datei `disk.img` kann wie folgt auf ein nicht eingebundenes Laufwerk passender Größe, hier zum Beispiel auf die zweite Platte "
        "des Rechners, geschrieben werden:",
        "The packages for sound are listed below.\npackage\nV:314, I:444\nalsa-utils\nV:1, I:22\noss-compat\nV:235, I:298\n2475\n"
        "utilities for configuring and using the sound compatibility layer that prevents errors audio and video processing engine audio and "
        "video processing engine in a further edition audio server to replace another one audio server client library connection kit with "
        "low latency sound engine of the desktop",
        "the host name up to the first ‘.’ the host name",
        "See Section 4.2 [Bash Builtins], page 55.",
        "Equivalent to `!!:s` (see Modifiers below).",
        "Tip: See Section 9.3.4 of the manual for the output.",
        "Siehe dazu den Abschnitt 4 des Handbuchs.",
        "From: barry@maker.example (Barry A. Warsaw)\nTo: list@maker.example\nSubject: the second of many tests\n\nhello",
        "PATH=${PATH}:/usr/sbin if [ -d ~/bin ] ; then PATH=~/bin:${PATH} fi export PATH EDITOR=vim export EDITOR=vim; [ -f $KEYS ] && . $KEYS "
        "|| tar -cvJf foo/ *.xz > foo/ | ls -l *.xz 2>/dev/null",
        "tar -cvjf foo.tar.bz2 bar/ tar -cvJf foo.tar.xz bar/ zcat README.gz | pager zcat README.gz > foo",
        "Do not put links to other directories in the source tree (e.g.",
        "| [`fontconfig`](http://a.example/f) | [V:409, I:721](http://b.example/f) | [617](http://c.example/f) |",
        "",
    ],
)
def test_headings_captions_links_contents_and_code_are_no_prose(text: str) -> None:
    assert not has_prose(text)


@pytest.mark.parametrize(
    "text",
    [
        "The control failed in March.",
        "## Findings\n\nThe control failed in March.",
        "- The owner of the account signs it.\n- A date",
        "the control failed in march and nobody had looked at the branch since the keys were counted twice in the year before",
        "| Region | Revenue |\n|---|---|\n| Northern Europe | two million |",
        "As [the manual](a.html) says, the server must be stopped first.",
        "| 2025-01-16 | 1.50 | 6.25 |\n| 2025-01-17 | 2.50 | 7.25 |",
        "- Opening: 1.50\n- Closing: 6.25\n- Volume: 555",
        "The control failed in March. What was seen in each of the branches is listed in full here:",
        "fast\n\nThe control runs every hour.\n\nslow\n\nThe control runs once a day.\n\nnever\n\nThe control does not run.\n\n"
        "once\n\nThe control runs once.\n\ntwice\n\nThe control runs twice.\n\noften\n\nThe control runs often.",
        "Dear all,\n\nThe control failed in March.\n\nKind regards\nJo Bell\nHead of risk\nBell and sons\n+44 20 5550\nwww.example.org\nLeeds",
        "Die Kontrolle ist im März ausgefallen.",
        "See what the branch counted last year and in which of its rooms, who had the keys at that time, and why nobody asked.",
        "From March on, the control runs twice a day.",
        "With `--all`, `git push` sends `refs/heads/*` and `refs/tags/*` of `origin/main` to `/srv/git`.",
        "Le contrôle a échoué en mars.",
        "Config files such as setup.cfg, tox.ini, app.toml and main.yaml are read before the others, e.g. before local.py.",
        "该控制措施在三月份失效了。",
        "The dots... are not a leader in this line.",
    ],
)
def test_sentences_items_and_tables_are_prose(text: str) -> None:
    assert has_prose(text)
