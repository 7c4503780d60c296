"""A network between a client and a server, mostly a database, that can be slow, or dead without a word."""

from __future__ import annotations

import asyncio
import contextlib


class Proxy:
    """Stands between a client and a server on loopback, whose URL is `scheme://...:port/...`.

    It can be slow, stop forwarding without hanging up, and hang up on the next few who come.
    """

    def __init__(self, url: str) -> None:
        self._target = int(url.rpartition(":")[2].partition("/")[0])
        self._url = url
        self.is_stalled = False
        self.delay_s = 0.0
        self.connections = self.refusals = 0
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Proxy:  # noqa: PYI034 - never subclassed
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.is_stalled, self.delay_s = False, 0.0
        self._server.close()
        self.hang_up()

    def hang_up(self) -> None:
        """Break every connection that there is."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    @property
    def port(self) -> int:
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def url(self) -> str:
        return self._url.replace(f":{self._target}/", f":{self.port}/")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.refusals:
            self.refusals -= 1
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers += [writer, far_writer]
        await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                await asyncio.sleep(self.delay_s)
                while self.is_stalled:
                    await asyncio.sleep(0.01)
                writer.write(data)
        writer.close()
