"""The collection of malicious files by name, and parts that several kinds need."""

from collections.abc import Callable

from services.ingestion.domain import File

Maker = Callable[[], File]
Files = dict[str, Maker]
MIB = 2**20
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
BOMB = '<!DOCTYPE b [<!ENTITY a0 "ha">' + "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10)) + "]>"


def adder(files: Files) -> Callable[..., None]:
    """A function that adds a file under a unique name. The file is built when a test needs it."""

    def add(name: str, file_name: str, make: Callable[[], bytes], content_type: str = "") -> None:
        assert name not in files
        files[name] = lambda: File(make(), file_name, content_type)

    return add
