"""Which IP addresses may be fetched from: public ones, none that leads into a private network."""

import ipaddress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

# IANA's special-purpose registry for IPv4, multicast, the reserved range above it, and a cloud's metadata service at a public address.
INSIDE_V4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",
        "168.63.129.16/32",
    )
)
# Only global unicast IPv6 is public, except for special-purpose ranges and those that embed an IPv4 address (Teredo, 6to4).
GLOBAL_V6 = IPv6Network("2000::/3")
INSIDE_V6 = tuple(
    IPv6Network(network) for network in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
)


def is_public(address: str) -> bool:
    """True for an address that anybody can reach. False for any other text, including invalid addresses."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, IPv6Address):
        return _is_public_v6(parsed)
    return _is_public_v4(parsed)


def _is_public_v4(address: IPv4Address) -> bool:
    return not any(address in network for network in INSIDE_V4)


def _is_public_v6(address: IPv6Address) -> bool:
    # Outside global unicast: mapped (::ffff:0:0/96) and translated (64:ff9b::/96) addresses, fe80::, fc00:: and ff00::.
    return address.scope_id is None and address in GLOBAL_V6 and not any(address in network for network in INSIDE_V6)
