"""A provider's server that does to its clients whatever a test tells it to."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import struct
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter, str], Awaitable[None]]


class HostileProvider:
    """Where it listens, and what it was sent."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.connections = 0
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def headers(self) -> dict[str, str]:
        """Those of the only request."""
        (request,) = self.requests
        return dict(line.lower().split(": ", 1) for line in request.split("\r\n")[1:] if line)


@asynccontextmanager
async def hostile_provider(behaviour: Behaviour, tls: ssl.SSLContext | None = None) -> AsyncIterator[HostileProvider]:
    """Serve on a free port of this machine."""
    tasks: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        provider.connections += 1
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            request = (await reader.readuntil(b"\r\n\r\n")).decode("ascii")
            provider.requests.append(request)
            await behaviour(reader, writer, request)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    provider = HostileProvider(server.sockets[0].getsockname()[1])
    try:
        yield provider
    finally:
        server.close()
        for task in filter(None, tasks):
            task.cancel()
        await asyncio.gather(*filter(None, tasks), return_exceptions=True)


def answer(status: str, *headers: str, body: bytes = b"") -> Behaviour:
    """Answer properly."""
    head = "\r\n".join((f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers, "", ""))
    return send(head.encode() + body)


def send(text: bytes) -> Behaviour:
    """Send this and hang up."""

    async def behave(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _request: str) -> None:
        writer.write(text)
        await writer.drain()

    return behave


def send_and_hang(text: bytes) -> Behaviour:
    """Send this and never say another word."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _request: str) -> None:
        writer.write(text)
        await writer.drain()
        await reader.read()

    return behave


def drip(text: bytes) -> Behaviour:
    """Send the text byte by byte, over and over."""

    async def behave(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _request: str) -> None:
        while True:
            for byte in text:
                writer.write(bytes([byte]))
                await asyncio.sleep(0.001)

    return behave


def flood(text: bytes) -> Behaviour:
    """Send the text as often as the client takes it."""

    async def behave(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _request: str) -> None:
        while True:
            writer.write(text)
            await writer.drain()
            await asyncio.sleep(0)

    return behave


async def reset(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _request: str) -> None:
    """Break the connection."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def echo(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: str) -> None:
    """Refuse, and say in reason, header and body everything that was asked."""
    said = request.replace("\r\n", " ")
    head = f"HTTP/1.1 401 {said}\r\nx-said: {said}\r\ncontent-length: {len(said)}\r\n\r\n{said}"
    writer.write(head.encode())
    await writer.drain()


SIGNS_CERTIFICATES = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


class Authority:
    """A certificate authority of one's own, in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
        self._certificate = (
            self._builder(name, name, self._key, ends_in=1)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(SIGNS_CERTIFICATES, critical=True)
            .sign(self._key, hashes.SHA256())
        )

    @property
    def pem(self) -> str:
        """Its own certificate, for those who are to trust it."""
        return self._certificate.public_bytes(serialization.Encoding.PEM).decode()

    def client(self) -> ssl.SSLContext:
        """Return a context that trusts this authority and no other."""
        return ssl.create_default_context(cadata=self.pem)

    def server(self, *names: str, ends_in: int = 1) -> ssl.SSLContext:
        """Return the context of a server with a certificate for these names or addresses, good for so many days."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        certificate = (
            self._builder(subject, self._certificate.subject, key, ends_in=ends_in)
            .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        file = self._folder / f"{names[0].replace(':', '-')}.{ends_in}.pem"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(file)
        return context

    def _builder(
        self, subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, *, ends_in: int
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=30))
            .not_valid_after(now + timedelta(days=ends_in))
            # Python 3.13 asks for both, as RFC 5280 does.
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
