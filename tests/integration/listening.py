"""The addresses that a process and its children listen on, read from /proc."""

from pathlib import Path

LISTENING = "0A"
# 127.0.0.1 and ::1, as /proc writes them on a little-endian machine.
LOOPBACK = ("0100007F", "00000000000000000000000001000000")


def _read(path: Path) -> str:
    """A file of a process; empty if it has ended and only waits for its parent."""
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def listening(pid: int) -> set[str]:
    """`ADDRESS:PORT` of every listening TCP socket, in hexadecimal as in /proc."""
    addresses: set[str] = set()
    for member in {pid, *_children(pid)}:
        sockets = {link for link in _links(member) if link.startswith("socket:[")}
        for table in ("tcp", "tcp6"):
            for line in _read(Path("/proc") / str(member) / "net" / table).splitlines()[1:]:
                _, local, _, state, *_, inode = line.split()[:10]
                if state == LISTENING and f"socket:[{inode}]" in sockets:
                    addresses.add(local)
    return addresses


def open_to_others(pid: int) -> set[int]:
    """The listening ports that other machines can reach."""
    return {
        int(port, 16)
        for host, _, port in (address.partition(":") for address in listening(pid))
        if host not in LOOPBACK
    }


def _links(pid: int) -> list[str]:
    links = []
    for entry in (Path("/proc") / str(pid) / "fd").iterdir():
        try:
            links.append(str(entry.readlink()))
        except OSError:
            continue
    return links


def _children(pid: int) -> set[int]:
    tasks = (Path("/proc") / str(pid) / "task").glob("*/children")
    direct = {int(child) for task in tasks for child in task.read_text().split()}
    return direct.union(*(_children(child) for child in direct))
