"""Which endpoints a provider may have, however they are spelled."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmrouter_server.catalog.provider import endpoint_problem

NOT_A_URL = "must be a URL"
SCHEME = "must be a URL that begins with https:// or http://"
USER_INFO = "must hold no user name or password"
NOT_A_BASE = "must be a base URL, without query, fragment, spaces or control characters"
AUTHORITY = "must have a host in ASCII (an international name as xn--) and, if any, a port from 1 to 65535"
MAPPED, NAT64 = (ipaddress.IPv6Address(prefix).packed[:12] for prefix in ("::ffff:0:0", "64:ff9b::"))
PRIVATE = "must not be a loopback, private or link-local address"

URL_PIECES = st.lists(
    st.one_of(st.text(max_size=5), st.sampled_from(["http://", "https://", "127.0.0.1", "[::1]", ":", "@", "%", "0x"])),
    max_size=8,
).map("".join)
NUMBERS = st.integers(0, 2**32 - 1).flatmap(
    lambda number: st.sampled_from([str(number), f"0{number:o}", f"{number:#x}", f"{number:#X}"])
)


def spellings(address: ipaddress.IPv4Address) -> list[str]:
    """Return the ways in which resolvers read one address."""
    a, b, c, d = address.packed
    number, low = int(address), int(address) & 0xFFFFFF
    return [
        f"{a}.{b}.{c}.{d}.",
        f"{a}.{b}.{c << 8 | d}",
        f"{a}.{low}",
        f"{number}",
        f"0{number:o}",
        f"{number:#x}",
        f"{number:#X}",
        f"0{a:o}.0{b:o}.0{c:o}.0{d:o}",
        f"{a:#x}.{b:#x}.{c:#x}.{d:#x}",
        f"{a:#x}.0{b:o}.{c}.{d}.",
        f"[::ffff:{address}]",
        f"[::FFFF:{a:02X}{b:02X}:{c:02X}{d:02X}]",
        f"[0:0:0:0:0:ffff:{address}]",
        f"[::{address}]",
        f"[64:ff9b::{address}]",
        f"[64:ff9b:1::{address}]",
        f"[2002:{a:02x}{b:02x}:{c:02x}{d:02x}::1]",
    ]


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://api.openai.com/v1",
        "https://api.openai.com",
        "https://api.openai.com/",
        "HTTPS://API.OpenAI.com/v1",
        "http://llm.example.com:8000/v1",
        "https://example.com:1",
        "https://example.com:65535/v1",
        "https://example.com./v1",
        "https://my_llm-1.example.com/a/b.c/~d",
        "https://xn--bcher-kva.example/v1",
        "http://vllm:8000/v1",
        "https://localhost.example.com",
        "https://notlocalhost",
        "https://0x7f.example",
        "https://127.0.0.1.example.com",
        "https://8.8.8.8/v1",
        "https://[2606:4700::1111]:8443/v1",
        "https://[2606:4700::1111%eth0]",
    ],
)
@pytest.mark.parametrize("allow_private", [True, False])
def test_the_base_url_of_a_public_api_is_good(endpoint: str, allow_private: bool) -> None:
    assert endpoint_problem(endpoint, allow_private=allow_private) is None


@pytest.mark.parametrize(
    ("endpoint", "problem"),
    [
        ("", SCHEME),
        ("api.openai.com", SCHEME),
        ("//api.openai.com", SCHEME),
        ("ftp://api.openai.com", SCHEME),
        ("file:///etc/passwd", SCHEME),
        ("javascript:alert(1)", SCHEME),
        ("https:api.openai.com", SCHEME),
        ("https:/api.openai.com", SCHEME),
        ("https:\\\\api.openai.com", SCHEME),
        ("https://", SCHEME),
        ("https:///v1", SCHEME),
        ("https://:443", SCHEME),
        ("https://[::1", NOT_A_URL),
        ("https://[::g]", NOT_A_URL),
        ("https://[127.0.0.1]", NOT_A_URL),
        ("https://example.com:65536", NOT_A_URL),
        ("https://example.com:-1", NOT_A_URL),
        ("https://example.com:https", NOT_A_URL),
        ("https://example.com:٤٤٣", NOT_A_URL),
        ("https://exam℀ple.com", NOT_A_URL),
        ("https://example.com:0", AUTHORITY),
        ("https://example.com:", AUTHORITY),
        ("https://[::1]x", AUTHORITY),
        ("https://x[::1]", AUTHORITY),
        ("https://[v1.x]", AUTHORITY),
        ("https://.", AUTHORITY),
        ("https://.example.com", AUTHORITY),
        ("https://example..com", AUTHORITY),
        ("https://example.com..", AUTHORITY),
        ("https://-", AUTHORITY),
        ("https://bücher.example", AUTHORITY),
        ("https://127.0.0.1\\.example.com", AUTHORITY),
        ("https://user@example.com", USER_INFO),
        ("https://user:password@example.com", USER_INFO),
        ("https://:password@example.com", USER_INFO),
        ("https://@example.com", USER_INFO),
        ("https://example.com\\@127.0.0.1", USER_INFO),
        ("https://example.com/v1?key=x", NOT_A_BASE),
        ("https://example.com/v1?", NOT_A_BASE),
        ("https://example.com/v1#x", NOT_A_BASE),
        ("https://example.com/v1#", NOT_A_BASE),
        ("https://example.com/a b", NOT_A_BASE),
        (" https://example.com", NOT_A_BASE),
        ("https://example.com ", NOT_A_BASE),
        ("https://exam\tple.com", NOT_A_BASE),
        ("https://example.com\n", NOT_A_BASE),
        ("https://example.com/\r\nx", NOT_A_BASE),
        ("\x01https://example.com", NOT_A_BASE),
        ("https://example\x00.com", NOT_A_BASE),
        ("https://example.com/\x7f", NOT_A_BASE),
        ("https://example.com/\x85", NOT_A_BASE),
        ("https://example.com/\u2028", NOT_A_BASE),
        ("https://example.com/\u202e", NOT_A_BASE),
        ("https://example.com/\ud800", NOT_A_BASE),
        ("https://local\u00adhost", NOT_A_BASE),
        ("https://local\u200bhost", NOT_A_BASE),
    ],
)
@pytest.mark.parametrize("allow_private", [True, False])
def test_what_is_no_base_url_is_refused(endpoint: str, problem: str, allow_private: bool) -> None:
    assert endpoint_problem(endpoint, allow_private=allow_private) == problem


@pytest.mark.parametrize(
    "host",
    [
        *["localhost", "LOCALHOST", "localhost.", "localhost.localdomain", "api.localhost", "API.LocalHost."],
        *["0.0.0.0", "0", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.169.254", "172.31.0.1"],
        *["192.168.1.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"],
        *["127.1", "127.0.1", "127.0.0.1.", "0127.0.0.1", "08.1", "0x7f.1.", "256.256.256.256", "1.2.3.4.5"],
        *["[::]", "[::1]", "[0:0:0:0:0:0:0:1]", "[fd00::1]", "[FD00:EC2::254]", "[fc00::1]", "[fec0::1]", "[ff02::1]"],
        *["[fe80::1]", "[fe80::1%eth0]", "[fe80::1%25eth0]", "[::1%lo]", "[2001:db8::1]", "[100::1]"],
        *["[2001:0:7f00:1::1]", "[4000::1]"],
    ],
)
def test_a_private_address_is_refused_unless_it_is_allowed(host: str) -> None:
    for endpoint in (f"http://{host}", f"https://{host}/v1", f"HTTP://{host}:8000/v1"):
        assert endpoint_problem(endpoint, allow_private=False) == PRIVATE
        assert endpoint_problem(endpoint, allow_private=True) is None


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "10.1.2.3", "0.0.0.0"])
def test_a_private_address_is_known_in_every_disguise(address: str) -> None:
    for host in spellings(ipaddress.IPv4Address(address)):
        assert endpoint_problem(f"http://{host}:8000/v1", allow_private=False) == PRIVATE, host
        assert endpoint_problem(f"http://{host}:8000/v1", allow_private=True) is None, host


@pytest.mark.parametrize(
    "host",
    [
        *["\uff11\uff12\uff17.0.0.1", "\u2460\u2461\u2466.0.0.1", "\uff4cocalhost", "127.0.0.\u0661"],
        *[dot.join(["127", "0", "0", "1"]) for dot in ("\u3002", "\uff0e", "\uff61")],
        *["127.0.0.%31", "%6cocalhost", "127%2e0%2e0%2e1"],
    ],
)
@pytest.mark.parametrize("allow_private", [True, False])
def test_a_host_that_only_some_parsers_would_translate_to_an_address_is_always_refused(
    host: str, allow_private: bool
) -> None:
    assert endpoint_problem(f"http://{host}:8000/v1", allow_private=allow_private) == AUTHORITY


@given(URL_PIECES, st.booleans())
@example("http://[", True)
@example("http://[::1%", False)
@example("http://\ud800", False)
@example("http://" + "\uff11" * 2000, False)
def test_no_text_makes_the_check_fail_and_what_it_accepts_has_one_plain_host(text: str, allow_private: bool) -> None:
    if endpoint_problem(text, allow_private=allow_private) is None:
        url = urlsplit(text)
        assert url.netloc.isascii()
        assert url.hostname is not None
        assert url.geturl().partition("://")[2] == text.partition("://")[2]


@given(st.lists(NUMBERS, min_size=1, max_size=4).map(".".join), st.sampled_from(["", "."]))
def test_whatever_the_resolver_of_this_machine_reads_as_a_private_address_is_refused(host: str, dot: str) -> None:
    read = None
    with contextlib.suppress(OSError):
        read = ipaddress.IPv4Address(socket.inet_aton(host))
    problem = endpoint_problem(f"http://{host}{dot}", allow_private=False)
    if read is None or read.is_private:
        assert problem == PRIVATE


@given(st.ip_addresses(v=6))
def test_an_ipv6_address_is_accepted_only_when_it_or_the_ipv4_address_it_leads_to_is_global_unicast(
    address: ipaddress.IPv6Address,
) -> None:
    accepted = endpoint_problem(f"http://[{address}]", allow_private=False) is None
    led_to = ipaddress.IPv4Address(address.packed[-4:])
    if address.packed[:12] in (MAPPED, NAT64):
        assert accepted == (led_to.is_global and not led_to.is_multicast)
    else:
        assert accepted == (address.packed[0] >> 5 == 1 and address.sixtofour is None and address.is_global)
