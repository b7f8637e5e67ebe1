"""Builds compound files (OLE) and Outlook mails for the tests."""

import struct
from collections.abc import Mapping, Sequence
from typing import Any

SECTOR, MINI, CUTOFF = 512, 64, 4096
END, FREE, FAT, NONE = 0xFFFFFFFE, 0xFFFFFFFF, 0xFFFFFFFD, 0xFFFFFFFF
Tree = Mapping[str, Any]


def make_compound(tree: Tree) -> bytes:
    """A compound file with streams (bytes) in storages (mappings)."""
    entries: list[list[Any]] = [["Root Entry", 5, NONE, NONE, NONE, END, 0]]
    big: list[bytes] = []
    small = bytearray()
    minis: list[int] = []

    def link(places: Sequence[int]) -> int:
        if not places:
            return NONE
        middle = len(places) // 2
        entries[places[middle]][2:4] = [link(places[:middle]), link(places[middle + 1 :])]
        return places[middle]

    def add(storage: Tree, owner: int) -> None:
        places = []
        for name in sorted(storage, key=lambda name: (len(name), name.upper())):
            content = storage[name]
            places.append(len(entries))
            entries.append([name, 2 if isinstance(content, bytes) else 1, NONE, NONE, NONE, END, 0])
            if not isinstance(content, bytes):
                add(content, places[-1])
            elif len(content) >= CUTOFF:
                entries[places[-1]][5:] = [("big", len(big)), len(content)]
                big.append(content)
            elif content:
                first, count = len(minis), -(-len(content) // MINI)
                entries[places[-1]][5:] = [first, len(content)]
                minis.extend([*range(first + 1, first + count), END])
                small.extend(content.ljust(count * MINI, b"\0"))
        entries[owner][4] = link(places)

    add(tree, 0)
    mini_fat = struct.pack(f"<{len(minis)}I", *minis)
    while len(entries) % 4:
        entries.append(["", 0, NONE, NONE, NONE, 0, 0])
    directory_size = len(entries) * 128
    parts = [b"\0" * directory_size, mini_fat, bytes(small), *big]
    starts, chain = list[int](), list[int]()
    for part in parts:
        count = -(-len(part) // SECTOR)
        starts.append(len(chain) if count else END)
        chain += [*range(len(chain) + 1, len(chain) + count), END] if count else []
    for entry in entries:
        if isinstance(entry[5], tuple):
            entry[5] = starts[3 + entry[5][1]]
    entries[0][5:] = [starts[2], len(small)]
    parts[0] = b"".join(_entry(entry) for entry in entries)
    fats = 1
    while fats * (SECTOR // 4) < len(chain) + fats:
        fats += 1
    first_fat = len(chain)
    chain += [FAT] * fats
    fat = struct.pack(f"<{len(chain)}I", *chain).ljust(fats * SECTOR, b"\xff")
    mini_sectors = -(-len(mini_fat) // SECTOR)
    header = struct.pack(
        "<8s16xHHHHH6xIIIIIIIIII",
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        0x3E,
        3,
        0xFFFE,
        9,
        6,
        0,
        fats,
        starts[0],
        0,
        CUTOFF,
        starts[1],
        mini_sectors,
        END,
        0,
        first_fat,
    )
    more = struct.pack("<108I", *[*range(first_fat + 1, first_fat + fats), *[FREE] * (109 - fats)])
    body = b"".join(part.ljust(-(-len(part) // SECTOR) * SECTOR, b"\0") for part in parts)
    return header + more + body + fat


def make_msg(message: Tree) -> bytes:
    """An Outlook mail from {"subject", "sender", "address", "to", "body", "html", "rtf", "attachments"}."""
    return make_compound(_message(message, 32))


def _message(message: Tree, header: int) -> dict[str, Any]:
    names = {"subject": "0037", "sender": "0C1A", "address": "5D01", "to": "0E04", "body": "1000"}
    tree: dict[str, Any] = {
        f"__substg1.0_{tag}001F": message[name].encode("utf-16-le") for name, tag in names.items() if name in message
    }
    sent = struct.pack("<HHIQ", 0x40, 0x0039, 6, 133_921_315_800_000_000)
    tree["__properties_version1.0"] = b"\0" * header + sent
    if "html" in message:
        tree["__substg1.0_10130102"] = message["html"]
    if "rtf" in message:
        tree["__substg1.0_10090102"] = message["rtf"]
    for number, (name, content) in enumerate(message.get("attachments", ())):
        storage: dict[str, Any] = {
            "__substg1.0_3707001F": name.encode("utf-16-le"),
            "__properties_version1.0": b"\0" * 8,
        }
        if isinstance(content, bytes):
            storage["__substg1.0_37010102"] = content
        else:
            storage["__substg1.0_3701000D"] = _message(content, 24)
        tree[f"__attach_version1.0_#{number:08X}"] = storage
    return tree


def _entry(entry: list[Any]) -> bytes:
    name, kind, left, right, child, start, size = entry
    wide = name.encode("utf-16-le") + b"\0\0" if name else b""
    return struct.pack(
        "<64sHBBIII16xI8x8xIQ", wide.ljust(64, b"\0"), len(wide), kind, 1, left, right, child, 0, start, size
    )
