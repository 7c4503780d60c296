"""Providers: what they are, and which endpoints they may have."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from uuid import UUID

MAX_CONFIG_BYTES = 16_384
MAX_PRIORITY = 1000
PROVIDER_TYPE = r"[a-z][a-z0-9_-]{0,49}"


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
    created_at: datetime
    updated_at: datetime


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


def endpoint_problem(endpoint: str, *, allow_private: bool) -> str | None:
    """Say what is wrong with a provider's base URL, or None.

    Literal private addresses are refused here; what a name resolves to is checked where connections are made.
    """
    try:
        url = urlsplit(endpoint)
        host, _ = url.hostname or "", url.port
    except ValueError:
        return "must be a URL"
    if url.scheme not in ("https", "http") or not host:
        return "must be a URL that begins with https:// or http://"
    if url.username is not None or url.password is not None:
        return "must hold no user name or password"
    if url.query or url.fragment or any(character.isspace() for character in endpoint):
        return "must be a base URL, without query, fragment or spaces"
    if not allow_private and _is_private(host):
        return "must not be a loopback, private or link-local address"
    return None


def _is_private(host: str) -> bool:
    if host.rstrip(".").lower() in ("localhost", "localhost.localdomain") or host.rstrip(".").lower().endswith(
        ".localhost"
    ):
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        # "127.1", "0x7f000001" and "2130706433" are addresses for many resolvers, and no name ends in a number.
        last = host.rstrip(".").rpartition(".")[2].lower()
        return last.isdigit() or last.startswith("0x")
    return not address.is_global or address.is_multicast
