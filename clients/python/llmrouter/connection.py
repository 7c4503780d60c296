"""How a client connects: encryption, retries, deadlines and metadata, the same for both clients."""

from __future__ import annotations

import ipaddress
import json
import re
import uuid
from dataclasses import dataclass

import grpc

DEFAULT_TIMEOUT_S = 10.0
STREAM_TIMEOUT_S = 300.0
MAX_ATTEMPTS = 4

_SERVICE_CONFIG = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": MAX_ATTEMPTS,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
)

# gRPC's own pause after a failed connection, 1 s and more, would outlast all the attempts of a call.
_RECONNECT = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 1000)]

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Where and how to connect.

    Loopback addresses and Unix sockets are reached in plain text, everything else over TLS. `insecure` sends tokens in
    plain text elsewhere too: only inside a network that does the encryption itself.
    """

    target: str
    timeout: float = DEFAULT_TIMEOUT_S
    """Seconds a call may take, unless the call says otherwise."""
    retries: bool = True
    """Try again, up to 4 attempts in all, when the service is UNAVAILABLE."""
    insecure: bool = False
    root_certificates: bytes | None = None
    """PEM of the authorities to trust for TLS; those of the system by default."""

    def __post_init__(self) -> None:
        if not self.target:
            raise ValueError("target is empty; it is like router.internal:50051")
        if not self.timeout > 0:
            raise ValueError("timeout must be a positive number of seconds")
        if self.insecure and self.root_certificates is not None:
            raise ValueError("insecure and root_certificates exclude each other")

    @property
    def credentials(self) -> grpc.ChannelCredentials | None:
        """TLS credentials, or None for plain text."""
        if self.root_certificates is None and (self.insecure or is_local(self.target)):
            return None
        return grpc.ssl_channel_credentials(self.root_certificates)

    @property
    def options(self) -> list[tuple[str, str | int]]:
        """Channel options."""
        if not self.retries:
            return [*_RECONNECT, ("grpc.enable_retries", 0)]
        return [*_RECONNECT, ("grpc.enable_retries", 1), ("grpc.service_config", _SERVICE_CONFIG)]


def is_local(target: str) -> bool:
    """Tell whether a gRPC target stays on this machine.

    >>> [is_local(t) for t in ("localhost:50051", "127.0.0.1:1", "[::1]:1", "unix:/run/llmrouter.sock")]
    [True, True, True, True]
    >>> [is_local(t) for t in ("router.internal:50051", "10.0.0.1:50051", "localhost.example.com:1")]
    [False, False, False]
    """
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    address = re.sub(r"^(dns|ipv4|ipv6):/*", "", target)
    host = address.rpartition(":")[0] if re.search(r":\d+$", address) else address
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def metadata_of(token: str, given: Metadata | None) -> tuple[Metadata, str]:
    """Return the metadata of one call, and its request id."""
    request_id = next((value for key, value in given or () if key == "x-request-id"), None) or str(uuid.uuid4())
    others = tuple(pair for pair in given or () if pair[0] not in ("x-request-id", "authorization"))
    return (("authorization", f"Bearer {token}"), ("x-request-id", request_id), *others), request_id
