"""Keys, passwords, connection strings and user names, and links that contain a person or a token."""

import base64
import re

from services.anonymization.domain import Finding

SECRET = "SECRET"  # noqa: S105 - the name of a type
WHOLE = re.compile(
    r"-----BEGIN (?P<kind>[A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?)-----.*?(?:-----END (?P=kind)-----|\Z)"
    r"|\beyJ[\w-]{8,}\.eyJ[\w-]{4,}\.[\w-]*"
    r"|\b(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{12,20}\b"
    r"|\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[abeprs]-[\w-]{10,}"
    r"|sk[_-](?:live|test|proj|ant)?[_-]?[\w-]{16,}|[prs]k_(?:live|test)_\w{10,}"
    r"|AIza[\w-]{30,}|ya29\.[\w-]{20,}|SG\.[\w-]{16,}\.[\w-]{16,}|npm_\w{30,}|pypi-[\w-]{30,}|hf_\w{20,}|dop_v1_\w{30,}|AC[0-9a-f]{32})"
    r"|\b(?:AccountKey|SharedAccessKey|sig)=[\w+/%=]{20,}",
    re.DOTALL,
)
CONNECTION = re.compile(r"\b[a-z][a-z0-9+.-]{2,20}://(?!\s)(?P<user>[^\s/:@\"']*):(?P<word>[^\s@\"']+)@[^\s\"'<>,]+")
KEYED = re.compile(
    r"(?i:(?:(?:passwor[dt]|passwd|pwd|passphrase|passcode|kennwort|kenncode"
    r"|mot de passe|secret|api[ _-]?key|apikey|access[ _-]?key(?:[ _-]?id)?|auth[ _-]?token|token"
    r"|private[ _-]?key|client[ _-]?secret|credentials?))"
    r"[\"']?(?: (?:is|was|lautet|ist|est))?\s{0,2}(?::=|=>|[:=])"
    r"(?:[ \t]{0,2}|\s{0,2}(?=[^\s]*[\d_!-/:-@]))|\bbearer )[\"'`]?(?P<value>[^\s\"'`,;<>)]{4,})"
)
SPOKEN = re.compile(
    r"(?i:\b(?:password|passwort|kennwort|passphrase|passcode)(?: (?:is|was|lautet|ist|to)|,"
    r"| of)?) [\"'“‘`]?(?P<value>(?=[^\s]*\d)(?=[^\s]*[A-Za-z])(?![^\s]*\]\()[^\s\"'”’`,;<>)]{5,})"
)
PIN = re.compile(
    r"(?:\bPIN(?: (?:code|number|is))?|(?i:\bdoor code|\balarm code|\bsafe code))\s?[:=]?\s(?P<value>\d{4,8})\b"
)
URL = re.compile(
    r"(?:\bhttps?://|\bwww\.|(?<![\w@./-])(?=[\w-]{1,63}\.(?:com|org|net|io|de|fr|co\.uk)/))[^\s<>\"')\]|]+[^\s<>\"')\]|.,;:!?’”]"
)
PERSONAL_URL = re.compile(
    r"://[^/\s]*@|(?i:/(?:u|user|users|profile|profiles|people|person|in|member|members|employee|employees"
    r"|staff|author|account|home|contact)s?/[\w.%@~+-]{2,}|/~\w+"
    r"|[?&](?:[\w-]*(?:token|key|sig|signature|user|userid|username|email|mail|session|sid|auth|code|password|name|id))=[^&\s]{3,}"
    r"|\b(?:linkedin|twitter|x|facebook|instagram|github|gitlab|xing|tiktok|medium|t)\.(?:com|me)/[\w.@-]{3,})"
)
USER = re.compile(
    r"(?i:\b(?:user[ _-]?(?:name|id)?|login|uid|benutzer(?:name)?|account name|slack|teams handle|twitter"
    r"|instagram|skype)\b\s?[:=]\s?@?)(?P<value>[A-Za-z][\w.-]{2,}[\w])"
)
HANDLE = re.compile(r"(?<![\w@./])@(?P<value>[a-z][a-z0-9]*[._][a-z0-9._]*[a-z0-9])(?![\w@])")
LOGGED = re.compile(
    r"\b(?:[Ff]or|user|by user|USER)\s(?:user )?(?P<value>[a-z][a-z0-9._-]{2,})\sfrom\s(?=\d|\[|[0-9a-f]*:)"
)
# The folder of a user; those of the system itself name nobody.
HOME = re.compile(
    r"(?i:(?<=[/\\]home[/\\])|(?<=[/\\]users[/\\]))"
    r"(?!(?i:public|default|all users|user|username|root|ubuntu|runner|admin|administrator|app|shared)(?![\w.-]))"
    r"(?P<value>[A-Za-z][\w.-]{2,63})(?=[/\\])"
)
CHOSEN = re.compile(r"(?i)passw|pwd|passphrase|passcode|kennw|mot de passe|\bpin\b")
LONGEST_WORD = 20
PLACEHOLDER = re.compile(
    r"(?i)^(?:\*+|x+|\.+|<.*|\$\{?.*|\{.*|null|none|true|false|required|changed?|reset|expired|your.*|to|and|the|policy|must)$"
)


# Mail addresses and numbers in disguise.
BASE64 = re.compile(r"(?<![\w+/=])(?:[A-Za-z0-9+/]{4}){4,200}(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?(?![\w+/=])")
PERCENT = re.compile(r"[\w.+-]{1,64}%(?:25){0,2}40[\w-]+(?:\.[\w-]+)+")
QUOTED_PRINTABLE = re.compile(
    r"(?<![\w.+=-])(?=[\w.+=-]*[A-Za-z])[\w.+=-]{1,64}=40(?=[\w=.-]*[A-Za-z])[\w=-]+(?:\.[\w=-]+)*"
)
AT, DOT = r"(?: (?:AT|at) | ?[\[({<-]at[\])}>-] ?)", r"(?: (?:DOT|dot) | ?[\[({<-]dot[\])}>-] ?)"
SPELLED_MAIL = re.compile(rf"(?<![\w.])[\w.+-]{{2,64}}{AT}[\w-]{{2,63}}(?:{DOT}[\w-]{{2,63}}){{1,3}}(?!\w)")
# Words of a mail's head in another character set (RFC 2047).
ENCODED_WORD = re.compile(r"=\?[\w-]{2,40}\?[BbQq]\?[^?\s]{1,200}\?=")
DIGIT_WORD = (
    r"(?:zero|oh|o|one|two|three|four|five|six|seven|eight|nine|double|triple|null|eins|zwei|zwo|drei|vier|fünf"
    r"|sechs|sieben|acht|neun)"
)
SPELLED_NUMBER = re.compile(rf"(?i:(?<!\w){DIGIT_WORD}(?:[ ,-]{{1,2}}{DIGIT_WORD}){{6,15}}(?!\w))")
SPACED_DIGITS = re.compile(r"(?<![\d.,] )(?<![\w.,])\+?\d(?: \d){8,15}(?! ?\d)(?!\w)")


class SecretRecogniser:
    """Finds secrets, user names and personal links in a paragraph."""

    def find(self, text: str) -> list[Finding]:
        """Whole secrets, and whole links that contain a person or a token."""
        findings = [Finding(match.start(), match.end(), SECRET, 1.0) for match in WHOLE.finditer(text)]
        findings += [Finding(match.start(), match.end(), SECRET, 1.0) for match in CONNECTION.finditer(text)]
        for form in (KEYED, SPOKEN, PIN):
            findings += [
                Finding(match.start("value"), end, SECRET, 0.97)
                for match in form.finditer(text)
                if (end := _end(text, match)) - match.start("value") >= 4 and _is_secret(match)
            ]
        findings += [
            Finding(match.start(), match.end(), "URL", 0.995)
            for match in URL.finditer(text)
            if PERSONAL_URL.search(match[0])
        ]
        findings += [
            Finding(match.start(), match.end(), SECRET, 0.99)
            for match in BASE64.finditer(text)
            if _hides_mail(match[0])
        ]
        for form, kind, score in (
            (PERCENT, SECRET, 0.99),
            (QUOTED_PRINTABLE, SECRET, 0.99),
            (ENCODED_WORD, SECRET, 0.99),
            (SPELLED_MAIL, "EMAIL_ADDRESS", 0.99),
            (SPELLED_NUMBER, SECRET, 0.9),
            (SPACED_DIGITS, "PHONE_NUMBER", 0.9),
        ):
            findings += [Finding(match.start(), match.end(), kind, score) for match in form.finditer(text)]
        for form in (USER, HANDLE, LOGGED, HOME):
            findings += [
                Finding(match.start("value"), match.end("value"), "USERNAME", 0.9) for match in form.finditer(text)
            ]
        return findings


def _hides_mail(value: str) -> bool:
    """True if the value is a mail address, or text with one, in base64."""
    try:
        plain = base64.b64decode(value, validate=True).decode("utf-8")
    except ValueError:
        return False
    return plain.isprintable() and re.search(r"[\w.+-]@[\w-]+\.\w", plain) is not None


def _is_secret(match: re.Match[str]) -> bool:
    """A word of only letters may be a password, but not a token."""
    value = match["value"]
    chosen = CHOSEN.search(match[0]) is not None or not value.isalpha() or len(value) > LONGEST_WORD
    return chosen and not PLACEHOLDER.match(value)


def _end(text: str, match: re.Match[str]) -> int:
    """The end of the value, without the full stop or colon of its sentence."""
    end = match.end("value")
    return end - 1 if text[end - 1] in ".:" else end
