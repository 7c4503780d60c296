"""The edge with an issuer that publishes its keys at a URL, and changes them, and is away at times."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import json
import ssl
import time
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from transcoding.edge_harness import Edge, Issuer, Reply, assert_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

SETTINGS = "/api/v2/llm/settings"


class KeyServer:
    """Serves a JWKS document over HTTP/1.1, as an identity provider does."""

    def __init__(self, document: str) -> None:
        self.document = document
        self.status = "200 OK"
        self.answers = asyncio.Event()
        self.answers.set()
        self.requests: list[str] = []
        self.address = ("127.0.0.1", 0)
        self._server: asyncio.Server | None = None

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        """Listen; the second time on the same port."""
        self._server = await asyncio.start_server(self._answer, *self.address, ssl=tls)
        self.address = self._server.sockets[0].getsockname()

    async def stop(self) -> None:
        self.answers.set()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    def url(self, scheme: str = "http", host: str = "127.0.0.1") -> str:
        return f"{scheme}://{host}:{self.address[1]}/realms/main/certs?tenant=1"

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            self.requests.append(head.split(b"\r\n")[0].decode())
            await self.answers.wait()
            body = self.document.encode()
            writer.write(f"HTTP/1.1 {self.status}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n".encode())
            writer.write(body)
            await writer.drain()
            writer.close()
            await writer.wait_closed()


class StartEdge(Protocol):
    async def __call__(self, jwks: str, /, *, jwks_refresh_s: int = ..., ca_file: Path = ...) -> Edge: ...


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


@pytest_asyncio.fixture
async def keys(issuer: Issuer) -> AsyncIterator[KeyServer]:
    server = KeyServer(issuer.jwks())
    yield server
    await server.stop()


@pytest_asyncio.fixture
async def start_edge(issuer: Issuer, tmp_path: Path) -> AsyncIterator[StartEdge]:
    started: list[Edge] = []

    async def start(jwks: str, /, **parameters: object) -> Edge:
        started.append(await Edge.start(tmp_path, issuer, jwks=jwks, **parameters))
        return started[0]

    yield start
    for edge in started:
        await edge.stop()


def fresh(issuer: Issuer) -> str:
    """Return a token that Envoy has not seen yet, and so cannot have remembered."""
    return issuer.token("ES256", jti=str(uuid.uuid4()))


async def until_status(edge: Edge, status: int, issuer: Issuer) -> None:
    """Send fresh tokens until the answer has this status, at most 20 s."""
    async with asyncio.timeout(20):
        while (await edge.call("GET", SETTINGS, token=fresh(issuer))).status != status:
            await asyncio.sleep(0.05)


async def both_ways(edge: Edge) -> list[Reply]:
    """Send a good token in the header, and in the cookie."""
    return await asyncio.gather(
        edge.call("GET", SETTINGS, token=fresh(edge.issuer)),
        edge.call("GET", SETTINGS, token=None, headers={"cookie": f"session={fresh(edge.issuer)}"}),
    )


def assert_unavailable(reply: Reply) -> None:
    assert_error(reply, 503, 14, "UNAVAILABLE", "the service is unavailable, try again shortly")
    assert reply.headers["retry-after"] == "1"
    assert "www-authenticate" not in reply.headers


async def test_the_keys_are_there_before_the_first_request(keys: KeyServer, start_edge: StartEdge) -> None:
    published = json.loads(keys.document)["keys"]
    for_encryption = published[0] | {"kid": "enc", "use": "enc", "alg": "RSA-OAEP"}  # Keycloak publishes such a one
    keys.document = json.dumps({"keys": [for_encryption, *published]})
    await keys.start()
    keys.answers.clear()
    asyncio.get_running_loop().call_later(0.5, keys.answers.set)
    edge = await start_edge(keys.url(), jwks_refresh_s=3600)
    assert keys.answers.is_set()
    asked = ["GET /realms/main/certs?tenant=1 HTTP/1.1"] * 2  # one for each place of a token
    assert keys.requests == asked
    for algorithm in ("RS256", "ES256", "EdDSA"):
        token = edge.issuer.token(algorithm)
        assert (await edge.call("GET", SETTINGS, token=token)).status == 200
        reply = await edge.call("GET", SETTINGS, token=None, headers={"cookie": f"session={token}"})
        assert reply.status == 200
    for bad in (edge.issuer.token("none"), edge.issuer.token("HS256"), fresh(Issuer()), fresh(Issuer("unknown-"))):
        assert_error(await edge.call("GET", SETTINGS, token=bad), 401, 16, "UNAUTHENTICATED")
    assert keys.requests == asked


@pytest.mark.parametrize("trouble", ["refuses", "hangs", "fails", "answers nonsense", "has no keys"])
async def test_an_issuer_in_trouble_at_the_start_is_waited_for(
    keys: KeyServer, start_edge: StartEdge, trouble: str
) -> None:
    await keys.start()
    document = keys.document
    match trouble:
        case "refuses":
            await keys.stop()
        case "hangs":
            keys.answers.clear()
        case "fails":
            keys.status = "500 Internal Server Error"
        case "answers nonsense":
            keys.document = "<html>"
        case "has no keys":
            keys.document = '{"keys": []}'
    edge = await start_edge(keys.url())
    for reply in await both_ways(edge):
        assert_unavailable(reply)
    expired = edge.issuer.token(exp=int(time.time()) - 60)
    assert_error(await edge.call("GET", SETTINGS, token=expired), 401, 16, "UNAUTHENTICATED")
    assert edge.server.calls == []

    keys.status, keys.document = "200 OK", document
    keys.answers.set()
    if trouble == "refuses":
        await keys.start()
    await until_status(edge, 200, edge.issuer)
    assert [reply.status for reply in await both_ways(edge)] == [200, 200]


async def test_keys_stay_good_while_the_issuer_is_away(keys: KeyServer, start_edge: StartEdge) -> None:
    await keys.start()
    edge = await start_edge(keys.url(), jwks_refresh_s=1)
    keys.status = "500 Internal Server Error"
    failed = len(keys.requests) + 8  # two providers, twice, with one retry
    async with asyncio.timeout(20):
        while len(keys.requests) < failed:
            await asyncio.sleep(0.05)
    assert [reply.status for reply in await both_ways(edge)] == [200, 200]


async def test_a_rotation_is_seen_with_the_next_refresh(keys: KeyServer, start_edge: StartEdge, issuer: Issuer) -> None:
    following = Issuer("following-")
    await keys.start()
    edge = await start_edge(keys.url(), jwks_refresh_s=1)
    seen = fresh(issuer)
    assert (await edge.call("GET", SETTINGS, token=seen)).status == 200
    assert_error(await edge.call("GET", SETTINGS, token=fresh(following)), 401, 16, "UNAUTHENTICATED")

    both = [*json.loads(issuer.jwks())["keys"], *json.loads(following.jwks())["keys"]]
    keys.document = json.dumps({"keys": both})
    await until_status(edge, 200, following)
    assert (await edge.call("GET", SETTINGS, token=fresh(issuer))).status == 200

    keys.document = following.jwks()
    await until_status(edge, 401, issuer)
    assert (await edge.call("GET", SETTINGS, token=fresh(following))).status == 200
    # Envoy remembers a good token until it expires: to refuse this one is left to the server. README.md says so.
    assert (await edge.call("GET", SETTINGS, token=seen)).status == 200


class Authority:
    """Signs certificates that say who a server is."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"authority {uuid.uuid4()}")])
        self.file = folder / f"{uuid.uuid4()}.pem"
        certificate = self._certificate(self._name, self._key, x509.BasicConstraints(ca=True, path_length=0))
        self.file.write_bytes(certificate.public_bytes(Encoding.PEM))

    def certify(self, host: str, context: ssl.SSLContext) -> None:
        """Let the server of this context be `host` from now on."""
        key = ec.generate_private_key(ec.SECP256R1())
        kind = x509.IPAddress(ipaddress.ip_address(host)) if host[0].isdigit() else x509.DNSName(host)
        certificate = self._certificate(x509.Name([]), key, x509.SubjectAlternativeName([kind]))
        chain = self._folder / "chain.pem"
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        chain.write_bytes(private + certificate.public_bytes(Encoding.PEM))
        context.load_cert_chain(chain)

    def _certificate(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType
    ) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(hours=1))
            .add_extension(extension, critical=True)
            .sign(self._key, hashes.SHA256())
        )


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


@pytest.mark.parametrize(("host", "asked_for"), [("localhost", "localhost"), ("127.0.0.1", None)])
async def test_https_with_a_certificate_for_the_host(
    keys: KeyServer,
    start_edge: StartEdge,
    authority: Authority,
    tls: ssl.SSLContext,
    host: str,
    asked_for: str | None,
) -> None:
    names: set[str | None] = set()
    tls.sni_callback = lambda _connection, name, _context: names.add(name)
    authority.certify(host, tls)
    await keys.start(tls)
    edge = await start_edge(keys.url("https", host), ca_file=authority.file)
    assert [reply.status for reply in await both_ways(edge)] == [200, 200]
    assert names == {asked_for}


@pytest.mark.parametrize(
    ("host", "certified", "known"),
    [
        ("localhost", "issuer.test", True),
        ("localhost", "127.0.0.1", True),
        ("127.0.0.1", "localhost", True),
        ("localhost", "localhost", False),
    ],
)
async def test_https_with_another_certificate_is_refused(
    keys: KeyServer,
    start_edge: StartEdge,
    authority: Authority,
    tls: ssl.SSLContext,
    host: str,
    certified: str,
    known: bool,
    tmp_path: Path,
) -> None:
    (authority if known else Authority(tmp_path)).certify(certified, tls)
    await keys.start(tls)
    edge = await start_edge(keys.url("https", host), ca_file=authority.file)
    for reply in await both_ways(edge):
        assert_unavailable(reply)
    assert keys.requests == []
    authority.certify(host, tls)  # nothing else was wrong
    await until_status(edge, 200, edge.issuer)
