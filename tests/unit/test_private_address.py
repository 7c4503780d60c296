from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrouter_server.catalog.provider import is_private_address


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "10.1.2.3",
        "100.64.0.1",  # carriers' own
        "169.254.169.254",  # clouds' metadata
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.1",
        "::1",
        "::",
        "fd00::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::127.0.0.1",
        "64:ff9b::7f00:1",  # NAT64 of 127.0.0.1
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::7f00:1",
        "2002:7f00:1::",  # 6to4 of 127.0.0.1
        "localhost",
        "LOCALHOST.",
        "a.localhost",
        "127.1",
        "0x7f000001",
        "2130706433",
    ],
)
def test_a_place_that_only_this_network_knows_is_private(host: str) -> None:
    assert is_private_address(host)


@pytest.mark.parametrize(
    "host", ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8", "api.openai.com", "localhost.example"]
)
def test_a_place_that_the_world_knows_is_not(host: str) -> None:
    assert not is_private_address(host)


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_as_private_in_the_clothes_of_ipv6(address: ipaddress.IPv4Address) -> None:
    for prefix in ("::ffff:0:0", "64:ff9b::"):
        dressed = ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) + int(address))
        assert is_private_address(str(dressed)) == is_private_address(str(address))
