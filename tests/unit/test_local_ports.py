from __future__ import annotations

import socket

from llmrouter_server.runtime.local_ports import HOST, free_ports, is_free


def test_a_free_port_is_given_to_nobody_else_until_somebody_names_it() -> None:
    ports = set(free_ports(20))
    assert len(ports) == 20
    assert ports.isdisjoint(_any_port() for _ in range(10_000))
    assert all(is_free(port) for port in ports)


def _any_port() -> int:
    with socket.socket() as taker:
        taker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taker.bind((HOST, 0))
        port: int = taker.getsockname()[1]
        return port
