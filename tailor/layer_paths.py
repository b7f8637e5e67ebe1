"""Paths of a model's layers. Training and inference share this, because they must find the same layers."""


def has_end(path: str, *ends: str) -> bool:
    """True if a path is one of the ends or ends with one, part by part, as peft compares them."""
    return any(path == end or path.endswith(f".{end}") for end in ends)
