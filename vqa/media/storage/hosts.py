"""Hosts that a URL may lead to: none in a private network, unless allowed.

A list of files, a data set or a server's redirect can name any address. So that no list of somebody else's makes this
machine ask the services of its own network (server-side request forgery), addresses that are not public are refused at
the moment of connecting: after names are resolved, and for each redirect.
"""

import ipaddress
import os
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import aiohttp

ALLOWED = "VQA_ALLOW_PRIVATE_HOSTS"  # in the environment: guarded children start with their parent's
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Schemes whose URLs name a bucket or repository, not a host; where those are is up to the environment.
_WITHOUT_HOST = frozenset(
    {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci", "hf", "github", "memory"}
)


class PrivateHostError(OSError):
    """Address in a private network; same text for all, so that tries are one error."""

    def __init__(self) -> None:
        """Say that it is private."""
        super().__init__("the address is in a private network")


def allow_private() -> None:
    """Allow private networks in this process and those it starts."""
    os.environ[ALLOWED] = "1"


def is_allowed() -> bool:
    """Whether private networks may be reached."""
    return os.environ.get(ALLOWED, "") not in ("", "0")


def is_private(address: str) -> bool:
    """Whether an address is not public: loopback, private, reserved or multicast."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        if found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            return is_private(str(inner))
    return not found.is_global or found.is_multicast


def refuse_private(uri: str, scheme: str) -> None:
    """Raise PrivateHostError for a URL of a private host; http(s): `public_socket`."""
    if is_allowed() or scheme in _WITHOUT_HOST or not (host := urlsplit(uri).hostname):
        return
    try:
        addresses = {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except OSError:
        return  # no such host: the store will say so
    if any(map(is_private, addresses)):
        raise PrivateHostError


def public_socket(info: tuple[Any, ...]) -> socket.socket:
    """Socket for an address aiohttp is to connect to; PrivateHostError if private."""
    family, kind, protocol, _, address = info
    if not is_allowed() and is_private(address[0]):
        raise PrivateHostError
    return socket.socket(family, kind, protocol)


async def public_client(**options: Any) -> "aiohttp.ClientSession":
    """Session of fsspec's HTTP file system that connects to public addresses only."""
    import aiohttp

    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(socket_factory=public_socket), **options)
