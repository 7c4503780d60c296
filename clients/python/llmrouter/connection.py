"""How a client connects: where to, encrypted or not, and gRPC's options; the same for both clients."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

import grpc

from llmrouter import service_config
from llmrouter.version import __version__

KEEPALIVE_S = 60
KEEPALIVE_TIMEOUT_S = 10

_PLAIN_SCHEMES = {"http": 80, "grpc": 50051}
_TLS_SCHEMES = {"https": 443, "grpcs": 443}
_OPTIONS: list[tuple[str, str | int]] = [
    # gRPC's own pause after a failed connection, 1 s and more, would outlast all the attempts of a call.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A connection that died in silence is noticed while calls wait for it, and not only by the system after minutes.
    ("grpc.keepalive_time_ms", KEEPALIVE_S * 1000),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_S * 1000),
    ("grpc.max_receive_message_length", -1),  # a decision explained over a large catalogue exceeds gRPC's own 4 MiB
    ("grpc.primary_user_agent", f"llmrouter-python/{__version__}"),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Where and how to connect.

    A target is `host:port`, one of gRPC's own names (`dns:///host:port`, `unix:/path`), or a URL: `https://host` and
    `grpcs://host` (port 443 unless said otherwise), `http://host:port` and `grpc://host:port`.

    TLS is used except for loopback addresses and Unix sockets, and for these too with an https URL or port 443: no
    token leaves the machine in plain text. `insecure` sends it in plain text elsewhere too: only inside a network that
    does the encryption itself. ValueError for what contradicts itself, and for a plain-text URL of another machine.
    """

    target: str
    timeout: float | None = None
    """Seconds a call with one answer may take, unless it says otherwise; None: as the service config has it."""
    retries: bool = True
    """Try again, up to 4 attempts in all, when the service is UNAVAILABLE and the RPC may be repeated."""
    insecure: bool = False
    root_certificates: bytes | None = None
    """PEM of the authorities to trust for TLS; those of the system by default."""

    def __post_init__(self) -> None:
        if not self.target:
            raise ValueError("target is empty; it is like router.internal:50051")
        if self.timeout is not None and not self.timeout > 0:
            raise ValueError("timeout must be a positive number of seconds")
        if self.insecure and self.root_certificates is not None:
            raise ValueError("insecure and root_certificates exclude each other")
        scheme, address = split(self.target)
        if scheme in _TLS_SCHEMES and self.insecure:
            raise ValueError(f"insecure contradicts {scheme}://")
        if scheme in _PLAIN_SCHEMES and self.root_certificates is not None:
            raise ValueError(f"root_certificates contradict {scheme}://")
        if scheme in _PLAIN_SCHEMES and not self.insecure and not is_local(address):
            raise ValueError(
                f"{scheme}://{address} would send the token in plain text; use https://, "
                "or insecure=True inside a network that does the encryption itself"
            )

    @property
    def address(self) -> str:
        """The target as gRPC names it."""
        return split(self.target)[1]

    @property
    def credentials(self) -> grpc.ChannelCredentials | None:
        """TLS credentials, or None for plain text."""
        scheme, address = split(self.target)
        asks_for_tls = self.root_certificates is not None or scheme in _TLS_SCHEMES or address.endswith(":443")
        is_plain = self.insecure or scheme in _PLAIN_SCHEMES or (is_local(address) and not asks_for_tls)
        return None if is_plain else grpc.ssl_channel_credentials(self.root_certificates)

    @property
    def options(self) -> list[tuple[str, str | int]]:
        """Channel options."""
        options = [*_OPTIONS, ("grpc.enable_retries", int(self.retries))]
        if self.retries:
            options.append(("grpc.service_config", service_config.of_channel()))
        if is_local(self.address):
            options.append(("grpc.enable_http_proxy", 0))  # what stays on this machine needs no proxy of another one
        return options


def split(target: str) -> tuple[str, str]:
    """Return the scheme of a URL, or "", and the address for gRPC. ValueError for a URL with more than host and port.

    >>> split("https://router.example.com"), split("http://[::1]:50051/"), split("router.internal:50051")
    (('https', 'router.example.com:443'), ('http', '[::1]:50051'), ('', 'router.internal:50051'))
    """
    match = re.fullmatch(r"(https?|grpcs?)://([^/?#]*)(.*)", target, re.IGNORECASE)
    if match is None:
        return "", target
    scheme, address, rest = match[1].lower(), match[2], match[3]
    if rest not in ("", "/"):
        raise ValueError(f"a target is a host and a port, without {rest!r}: gRPC has no paths")
    if not address or "@" in address:
        raise ValueError(f"a target is like {scheme}://router.example.com")
    if not re.search(r":\d+$", address):
        address = f"{address}:{_TLS_SCHEMES.get(scheme) or _PLAIN_SCHEMES[scheme]}"
    return scheme, address


def is_local(address: str) -> bool:
    """Tell whether a gRPC address stays on this machine.

    >>> [is_local(t) for t in ("localhost:50051", "127.0.0.1:1", "[::1]:1", "unix:/run/llmrouter.sock")]
    [True, True, True, True]
    >>> [is_local(t) for t in ("router.internal:50051", "10.0.0.1:50051", "localhost.example.com:1")]
    [False, False, False]
    """
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    name = re.sub(r"^(dns|ipv4|ipv6):/*", "", address)
    host = name.rpartition(":")[0] if re.search(r":\d+$", name) else name
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
