"""Which addresses a process and its children listen on, as Linux says."""

from pathlib import Path

LISTENING = "0A"
# 127.0.0.1 and ::1, as /proc writes them on a little-endian machine.
LOOPBACK = ("0100007F", "00000000000000000000000001000000")


def listening(pid: int) -> set[str]:
    """`ADDRESS:PORT` of every listening TCP socket, as /proc has it in hexadecimal."""
    found: set[str] = set()
    for member in {pid, *_children(pid)}:
        sockets = {link for link in _links(member) if link.startswith("socket:[")}
        for table in ("tcp", "tcp6"):
            for line in (Path("/proc") / str(member) / "net" / table).read_text().splitlines()[1:]:
                _, local, _, state, *_, inode = line.split()[:10]
                if state == LISTENING and f"socket:[{inode}]" in sockets:
                    found.add(local)
    return found


def open_to_others(pid: int) -> set[int]:
    """The ports among them that other machines could reach."""
    return {int(port, 16) for host, _, port in (one.partition(":") for one in listening(pid)) if host not in LOOPBACK}


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
