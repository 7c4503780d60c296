"""Providers: what they are, and which endpoints they may have."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from llmrouter_server.catalog.etag import etag_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from uuid import UUID

MAX_CONFIG_BYTES = 16_384
MAX_PRIORITY = 1000
PROVIDER_TYPE = r"[a-z][a-z0-9_-]{0,49}"
# Stricter than RFC 3986: no two parsers may find different hosts in what was accepted.
_AUTHORITY = re.compile(r"(\w+((\.|-+)\w+)*\.?|\[[0-9a-f:.]+(%\w+)?\])(:\d+)?", re.ASCII | re.IGNORECASE)
_IPV6_GLOBAL = ipaddress.IPv6Network("2000::/3")
_IPV6_6TO4 = ipaddress.IPv6Network("2002::/16")
_IPV6_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class Provider:
    """An upstream API that serves models."""

    id: UUID
    name: str
    provider_type: str
    api_endpoint: str
    requires_byok: bool
    is_enabled: bool
    priority: int
    config: Mapping[str, object]
    model_count: int
    """Its enabled models."""
    has_platform_key: bool
    revision: int
    created_at: datetime
    updated_at: datetime

    @property
    def etag(self) -> str:
        """Changes with every change."""
        return etag_of(self.id, self.revision)

    def facts(self) -> dict[str, object]:
        """Return everything that can be changed, as JSON."""
        return {
            "name": self.name,
            "provider_type": self.provider_type,
            "api_endpoint": self.api_endpoint,
            "requires_byok": self.requires_byok,
            "is_enabled": self.is_enabled,
            "priority": self.priority,
            "config": dict(self.config),
        }


@dataclass(frozen=True, slots=True)
class ProviderChanges:
    """New values of a provider's fields; None leaves a field as it is."""

    name: str | None = None
    provider_type: str | None = None
    api_endpoint: str | None = None
    requires_byok: bool | None = None
    is_enabled: bool | None = None
    priority: int | None = None
    config: Mapping[str, object] | None = None

    def applied_to(self, provider: Provider) -> Provider:
        """Return the provider with these values."""
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return dataclasses.replace(provider, **{name: value for name, value in given.items() if value is not None})


def endpoint_problem(endpoint: str, *, allow_private: bool) -> str | None:
    """Say what is wrong with a provider's base URL, or None.

    Literal private addresses and names of this machine are refused here. What another name resolves to is checked when
    a key is verified; Envoy connects wherever it leads.
    """
    try:
        url = urlsplit(endpoint)
        host, port = url.hostname or "", url.port
    except ValueError:
        return "must be a URL"
    if url.scheme not in ("https", "http") or not host:
        return "must be a URL that begins with https:// or http://"
    if url.username is not None or url.password is not None:
        return "must hold no user name or password"
    if not endpoint.isprintable() or any(character in endpoint for character in "?# "):
        return "must be a base URL, without query, fragment, spaces or control characters"
    if not _AUTHORITY.fullmatch(url.netloc) or port == 0:
        return "must have a host in ASCII (an international name as xn--) and, if any, a port from 1 to 65535"
    is_refused = not allow_private and is_private_address(host)
    return "must not be a loopback, private or link-local address" if is_refused else None


def is_private_address(host: str) -> bool:
    """Tell whether a host is a loopback, private, link-local or otherwise special address, or a name for this machine.

    Other names are not: ask again with what they resolve to.
    """
    name = host.rstrip(".").lower()
    if name in ("localhost", "localhost.localdomain") or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        # "127.1", "0x7f000001" and "2130706433" are addresses for many resolvers, and no name ends in a number.
        last = name.rpartition(".")[2]
        return last.isdigit() or last.startswith("0x")
    if isinstance(address, ipaddress.IPv6Address):
        embedded = _embedded_ipv4(address)
        if embedded is not None:
            return is_private_address(str(embedded))
        if address not in _IPV6_GLOBAL or address in _IPV6_6TO4:
            return True
    return not address.is_global or address.is_multicast


def _embedded_ipv4(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that an IPv6 address leads to by translation (IPv4-mapped, NAT64), or None."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if address in _IPV6_NAT64 else None
