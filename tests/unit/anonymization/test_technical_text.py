"""Technical text stays whole: code, identifiers, acronyms, numbers of sections; and the people in it are found all the same."""

import pytest

from services.anonymization.domain import Finding
from services.anonymization.recognise.code import code_places
from services.anonymization.recognise.hosts import is_host
from services.anonymization.recognise.mentions import Mentions
from services.anonymization.recognise.section_numbers import SectionNumbers
from services.anonymization.recognise.technical_text import TechnicalText
from tests.analyzers import load_english

MANUAL = (
    "The server reads the file `server.conf` when the daemon starts. To configure the default port, set the option `listen_port` and run"
    " `serverctl --reload`. The command prints the parameters of every module, and the protocol that each interface uses. If the package"
    " is installed in another directory, the variable $SERVER_HOME has its path, and the script in /usr/lib/server/bin/ finds the database."
    " Click the button in the dialog, or choose the menu entry, to see the table of sockets and the attributes of each object.\n\n"
)
LETTER = "Dear Ms Okafor,\n\nthank you for your letter of 3 May about the delivery. We will replace the two pallets.\n\nKind regards\n"


def replaced(text: str) -> list[tuple[str, str]]:
    analyzer = load_english()
    allowed = analyzer.policy.find_allowed(text)
    findings = Mentions(analyzer.lexicon).complete(text, analyzer.find(text), allowed)
    return [(finding.entity_type, text[finding.start : finding.end]) for finding in findings]


@pytest.mark.parametrize(
    "text",
    [
        "An ErrorResponse follows, then a CopyData message.",
        "GnuCash and SQLite read it. GnuCash then writes the GSSAPI token.",
        "The BIOS and the UEFI find it on LVM.",
        "Execute arbitrary SQL commands with EXECUTE; `sql` is a schema.",
        "Set LC_CTYPE and LC_COLLATE first.",
        "Use Logical Decoding for it. Decoding is slow.",
        "See www.debian.org and debian.org for the Debian packages.",
        "#### 12.1.1.14. Installing\n\nAs section 9.3.2.1 and section 12.1.1.14 say.",
        "It listens on 0.0.0.0 and 127.0.0.1 with the mask 255.255.255.0.",
        "```\nexport XFCE_Panel=Xfdesktop\nLoadModule Meridian Stonegate\n```\n",
        "    $ systemctl start Munin\n    Started Munin Node Service.\n",
        "Software such as download\n    managers, FTP clients, P2P clients, etc.\n\n    Examples: amule, gftp, d4x\n",
    ],
)
def test_technical_words_are_not_replaced(text: str) -> None:
    assert replaced(MANUAL + text) == []


@pytest.mark.parametrize(
    "text", ["1 USD = 7.7884 HKD", "The rate was\n1 EUR = 1.1054 USD\n", "Fixed in CVE-2025-8714."]
)
def test_currency_lines_and_public_numbers_are_not_replaced(text: str) -> None:
    assert replaced(text) == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('```\n$ git config user.name "Zebedee Quarrendon"\n```\n', ("PERSON", "Zebedee Quarrendon")),
        ("```\nAuthor: Ngozi Okafor <ngozi@okafor.example>\n```\n", ("PERSON", "Ngozi Okafor")),
        ("```\nINSERT INTO staff VALUES ('Sarah Jenkins', 4);\n```\n", ("PERSON", "Sarah Jenkins")),
        ("```\npassword = Tr0ub4dor\n```\n", ("SECRET", "Tr0ub4dor")),
        ("```\nuser: sjenkins42\n```\n", ("USERNAME", "sjenkins42")),
        ("```\nmail = ngozi@okafor.example\n```\n", ("EMAIL_ADDRESS", "ngozi@okafor.example")),
        ("```\npay(4111111111111111)\n```\n", ("CREDIT_CARD", "4111111111111111")),
        ("```\niban = DE89370400440532013000\n```\n", ("IBAN", "DE89370400440532013000")),
        ("    bind 192.168.7.84\n    port = 80\n", ("IP_ADDRESS", "192.168.7.84")),
        ("Mr Quarrendon wrote this part.", ("PERSON", "Quarrendon")),
        ("It was written by Wietse Venema.", ("PERSON", "Wietse Venema")),
        ("Vanterpool Logistics BV pays for it.", ("CLIENT", "Vanterpool Logistics BV")),
    ],
)
def test_people_accounts_and_secrets_are_found_in_technical_text(text: str, value: tuple[str, str]) -> None:
    assert value in replaced(MANUAL + text)


def test_a_host_is_replaced_only_if_it_holds_a_name_of_the_text() -> None:
    text = "Vanterpool Logistics BV runs www.vanterpool.com and mail.vanterpool-logistics.com next to ftp.example.com."
    hosts = [value for kind, value in replaced(text) if kind == "URL"]
    assert hosts == ["www.vanterpool.com", "mail.vanterpool-logistics.com"]


def test_an_account_that_is_an_ordinary_word_is_replaced_only_at_its_label() -> None:
    assert [value for _, value in replaced("user: placement\n\nThe placement of the boxes is open.")] == ["placement"]
    assert [value for _, value in replaced("user: tquarrendon\n\nAsk tquarrendon about the boxes.")] == [
        "tquarrendon"
    ] * 2


def test_a_network_address_is_not_taken_for_the_beginning_of_a_longer_number() -> None:
    text = "The login came from 52.84.12.9. Read 52.84.12.9.3 too."
    assert replaced(text) == [("IP_ADDRESS", "52.84.12.9")]


@pytest.mark.parametrize(
    ("text", "is_section"),
    [
        ("section 9.3.2.1 has it", True),
        ("#### 4.2.13.1. Guided", True),
        ("[4.2.13.1. Guided](x.html)\n[4.2.13.2. Manual](y.html)", True),
        ("10.1.2.3 server\n10.1.2.4 backup", True),
        ("10.1.2.3 - - [10/Oct/2000]", False),
        ("the login came from 52.84.12.9", False),
        ("see 52.84.120.9", False),
        ("version 2.6.24.4", True),
    ],
)
def test_numbers_of_sections_are_told_from_addresses(text: str, is_section: bool) -> None:
    start = next(place for place, letter in enumerate(text) if letter.isdigit())
    end = next((place for place in range(start, len(text)) if text[place] not in "0123456789."), len(text))
    number = text[start:end].rstrip(".")
    assert SectionNumbers(text).holds(start, start + len(number)) is is_section


@pytest.mark.parametrize(
    "text",
    [
        LETTER,
        "Please write to\n\n    Ngozi Okafor\n    12 Stonegate Lane\n    York YO1 7LJ\n\nby Friday.",
        "```\nNgozi Okafor called about the boxes.\nShe waits.\n```\n",
        "The minutes:\n\n    Present were Ngozi Okafor and Tom Eldridge,\n    who signed for the firm.\n",
    ],
)
def test_letters_addresses_and_prose_between_fences_are_no_code(text: str) -> None:
    assert code_places(text) == []


@pytest.mark.parametrize(
    "code",
    [
        "```sh\nrun --all /etc/x.conf\n```",
        "`run_job()`",
        "\tif (x == NULL)\n\t\treturn -1;",
        "$ git status",
        "a = 1\nb = 2\n",
    ],
)
def test_fences_spans_indented_blocks_shell_lines_and_settings_are_code(code: str) -> None:
    assert len(code_places(f"Text before.\n\n{code}\n\nText after.")) == 1


def test_code_of_one_text_makes_no_name_in_another_less_likely() -> None:
    other = f"{MANUAL}```\nStonegate = open()\n```\n"
    joined = f"{LETTER}\n\n{other}"
    name = Finding(joined.index("Okafor"), joined.index("Okafor") + 6, "PERSON", 0.4)
    word = Finding(joined.index("Stonegate"), joined.index("Stonegate") + 9, "PERSON", 0.4)
    technical = TechnicalText(joined, [len(LETTER), len(joined)], load_english().lexicon)
    assert list(technical.sift([name, word])) == [name]


def test_hosts_are_told_from_files_and_names() -> None:
    assert is_host("www.debian.org") and not is_host("setup.py") and not is_host("sarah.jenkins")
