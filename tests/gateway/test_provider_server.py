from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import h11
import pytest

from gateway import behaviour, faults, refusals, sse_faults
from gateway.answers import Answer, Usage, checked, is_unharmed
from gateway.behaviour import Fault, ok
from gateway.every_fault import FAULTS
from gateway.provider_exchange import TELLTALES, Fate
from gateway.provider_server import Provider, provider
from gateway.refusals import TOO_LONG, status
from gateway.sse_faults import ErrorEvent, Split
from hostile_provider import Authority

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from pathlib import Path

    Last = Callable[["Reply"], bool]

KEY = "sk-made-up-0123456789"
ENOUGH_BYTES = 6_000_000
LIMIT_S = 20
FOREVER_S = 0.1
"""How long to wait for what never comes."""
FATES = {
    "whole": Fate.ANSWERED,
    "nonsense": Fate.ANSWERED,
    "waiting": Fate.LEFT,
    "enough": Fate.LEFT,
    "reset": Fate.BROKEN,
    "closed": Fate.BROKEN,
}
"""What the provider makes of it when a client's answer ends so."""
COUNTS = {"bad chunk": 2, "cut": 3, "cut at EOF": 3, "reset after 3 parts": 3, "stalled after 3 parts": 3}
"""How many parts come before a fault is felt."""


@dataclass
class Reply:
    """What a client of a provider got, as far as it got it."""

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    informational: list[int] = field(default_factory=list)
    reads: list[bytes] = field(default_factory=list)
    end: str = "whole"
    """Or "reset", "closed", "nonsense", "waiting", "enough"."""

    @property
    def body(self) -> bytes:
        return b"".join(self.reads)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    @property
    def data(self) -> list[str]:
        """What the events hold, in an SSE reader of its own: any line end, comments and other fields left out."""
        lines = self.body.decode().replace("\r\n", "\n").replace("\r", "\n").split("\n")
        return [line[5:].removeprefix(" ") for line in lines if line.startswith("data:")]

    @property
    def chunks(self) -> list[dict[str, Any]]:
        return [json.loads(data) for data in self.data if data != "[DONE]"]

    @property
    def text(self) -> str:
        return "".join(choice["delta"].get("content", "") for chunk in self.chunks for choice in chunk["choices"])


class Client:
    """One connection that asks one thing after another."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)

    @classmethod
    async def connect(cls, served: Provider, tls: ssl.SSLContext | None = None) -> Client:
        return cls(*await asyncio.open_connection("127.0.0.1", served.port, ssl=tls))

    async def ask(
        self,
        *,
        stream: bool = False,
        usage: bool = True,
        model: str = "some-model",
        last: Last | None = None,
        **more: Any,
    ) -> Reply:
        """last: tells of what came so far that it is all that will come; FOREVER_S more is waited for another word."""
        asked: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": "hi"}], **more}
        if stream:
            asked |= {"stream": True, "stream_options": {"include_usage": usage}}
        return await self.send("POST", "/v1/chat/completions", json.dumps(asked).encode(), last)

    async def send(self, method: str, path: str, body: bytes = b"", last: Last | None = None) -> Reply:
        headers = [("host", "provider"), ("authorization", f"Bearer {KEY}"), ("content-length", str(len(body)))]
        request = h11.Request(method=method, target=path, headers=headers)
        for event in (request, h11.Data(body), h11.EndOfMessage()):
            self._writer.write(self._http.send(event) or b"")
        reply = Reply()
        try:
            async with asyncio.timeout(LIMIT_S):
                if last is None:
                    await self._read(reply)
                else:
                    await self._read_until(last, reply)
        except ConnectionError:
            reply.end = "reset"
        except h11.RemoteProtocolError:
            reply.end = "closed" if self._reader.at_eof() else "nonsense"
        return reply

    async def _read_until(self, last: Last, reply: Reply) -> None:
        reading = asyncio.ensure_future(self._read(reply))
        while not last(reply) and not reading.done():
            await asyncio.sleep(0.005)
        await asyncio.wait({reading}, timeout=FOREVER_S)
        if reading.cancel():
            reply.end = "waiting"
        else:
            await reading

    async def _read(self, reply: Reply) -> None:
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(await self._reader.read(1 << 16))
            elif isinstance(event, h11.InformationalResponse):
                reply.informational.append(event.status_code)
            elif isinstance(event, h11.Response):
                reply.status = event.status_code
                reply.headers = [(key.decode(), value.decode()) for key, value in event.headers]
            elif isinstance(event, h11.Data):
                reply.reads.append(bytes(event.data))
                if sum(map(len, reply.reads)) > ENOUGH_BYTES:
                    reply.end = "enough"
                    return
            else:
                if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
                    self._http.start_next_cycle()
                return

    async def leave(self) -> None:
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()


async def ask(served: Provider, *behaviour: Fault, tls: ssl.SSLContext | None = None, **asked: Any) -> Reply:
    if behaviour:
        served.behave(*behaviour)
    client = await Client.connect(served, tls)
    try:
        return await client.ask(**asked)
    finally:
        await client.leave()


async def test_an_answer_is_one_json_document_with_its_usage() -> None:
    async with provider() as served:
        reply = await ask(served, ok(Answer(content="Grüße 🙂", prompt_tokens=3, completion_tokens=2, cached_tokens=1)))
        assert served.url == f"http://127.0.0.1:{served.port}/v1"
    assert (reply.status, reply.header("content-type")) == (200, "application/json")
    assert reply.json["choices"][0]["message"]["content"] == "Grüße 🙂"
    assert reply.json["model"] == "some-model"
    assert reply.json["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "total_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 1, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 4, "audio_tokens": 0},
    }


async def test_a_stream_has_a_role_content_a_reason_usage_and_an_end() -> None:
    async with provider() as served:
        reply = await ask(served, ok(Answer(chunks=3)), stream=True)
    assert reply.header("content-type") == "text/event-stream; charset=utf-8"
    assert reply.data[-1] == "[DONE]"
    role, *words, finish, usage = reply.chunks
    assert role["choices"][0]["delta"]["role"] == "assistant"
    assert len(words) == 3
    assert reply.text == Answer(chunks=3).text
    assert finish["choices"][0]["finish_reason"] == "stop"
    assert finish["usage"] is None
    assert usage["choices"] == []
    assert usage["usage"] == Answer().figures()


@pytest.mark.parametrize(
    ("usage", "asked", "told_in"),
    [
        (Usage.OPENAI, True, [-1]),
        (Usage.OPENAI, False, []),
        (Usage.ALWAYS, False, [-1]),
        (Usage.WITH_FINISH, False, [-1]),
        (Usage.GROQ, False, [-1]),
        (Usage.NEVER, True, []),
    ],
)
async def test_usage_is_told_where_the_answer_says(usage: Usage, asked: bool, told_in: list[int]) -> None:
    async with provider() as served:
        reply = await ask(served, ok(Answer(usage=usage)), stream=True, usage=asked)
    told = [chunk.get("usage") or chunk.get("x_groq", {}).get("usage") for chunk in reply.chunks]
    assert [index - len(told) for index, figures in enumerate(told) if figures] == told_in


async def test_no_usage_means_none_in_a_document_either() -> None:
    async with provider() as served:
        assert "usage" not in (await ask(served, behaviour.no_usage())).json


async def test_a_long_answer_arrives_with_its_checksums() -> None:
    async with provider() as served:
        reply = await ask(served, ok(checked(2000)), stream=True)
        (seen,) = served.requests
    assert len(reply.chunks) == 2003
    assert is_unharmed(reply.text)
    assert not is_unharmed(reply.text.replace("7", "8", 1))
    assert (seen.sent_bytes, seen.sent) == (len(reply.body), hashlib.sha256(reply.body).hexdigest())


async def test_what_it_was_asked_is_kept() -> None:
    async with provider(clock=lambda: 12.5) as served:
        client = await Client.connect(served)
        await client.ask(model="a", seed=7)
        await client.ask(model="b")
        await ask(served, model="c")
        await client.leave()
    first, second, third = served.requests
    assert (first.at, first.method, first.path, first.fate) == (12.5, "POST", "/v1/chat/completions", Fate.ANSWERED)
    assert (first.body["model"], first.body["seed"]) == ("a", 7)
    assert json.loads(first.raw) == first.body
    assert first.headers["authorization"] == f"Bearer {KEY}"
    assert [first.connection, second.connection, third.connection] == [1, 1, 2]
    assert served.connections == 2


async def test_a_request_in_chunks_with_expectation_is_read_as_any_other() -> None:
    async with provider() as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nX-Two: a\r\nx-two: b\r\nExpect: 100-continue\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b'4\r\n{"mo\r\n8;x=y\r\ndel":"x"\r\n1\r\n}\r\n0\r\ntrailer: 1\r\n\r\n')
        assert (await reader.readuntil(b"\r\n")) == b"HTTP/1.1 200 OK\r\n"
        writer.close()
        seen = await served.request()
    assert seen.body == {"model": "x"}
    assert seen.headers["x-two"] == "a, b"


async def test_the_models_are_listed_whatever_happens_to_completions() -> None:
    async with provider() as served:
        served.models[:] = ["one", "two"]
        served.behave(status(500))
        client = await Client.connect(served)
        listed = await client.send("GET", "/v1/models")
        served.list_models_as(refusals.unauthorized())
        refused = await client.send("GET", "/v1/models")
        unknown = await client.send("GET", "/v1/other")
        await client.leave()
    assert [model["id"] for model in listed.json["data"]] == ["one", "two"]
    assert (refused.status, unknown.status) == (401, 404)
    assert served.chats == []
    assert len(served.requests) == 3


async def test_behaviours_follow_one_another_and_the_last_one_stays() -> None:
    async with provider() as served:
        served.behave(status(500), refusals.rate_limited("7"), ok())
        assert [(await ask(served)).status for _ in range(4)] == [500, 429, 200, 200]
        assert [seen.fault for seen in served.requests] == ["500", "429 retry-after 7", "ok", "ok"]
        served.behave(status(503))
        assert (await ask(served)).status == 503
        served.behave()
        assert (await ask(served)).status == 200


async def test_one_model_may_fail_while_others_are_well() -> None:
    async with provider() as served:
        served.behave_for("bad", status(500), status(502))
        asked = ["bad", "good", "bad", "good", "bad"]
        assert [(await ask(served, model=model)).status for model in asked] == [500, 200, 502, 200, 502]
        served.behave_for("bad")
        assert (await ask(served, model="bad")).status == 200


async def test_a_provider_is_down_for_a_while_by_its_clock() -> None:
    now = [100.0]
    async with provider(clock=lambda: now[0]) as served:
        down = behaviour.for_a_while(30, refusals.unavailable(), ok())
        assert (await ask(served, down)).status == 503
        now[0] += 29
        assert (await ask(served)).status == 503
        now[0] += 1
        assert (await ask(served)).status == 200


async def test_every_answer_carries_headers_that_are_none_of_a_clients_business() -> None:
    async with provider() as served:
        for fault in (ok(), status(500), faults.html(), refusals.unauthorized()):
            reply = await ask(served, fault)
            assert set(TELLTALES) <= set(reply.headers)


@pytest.mark.parametrize(
    ("fault", "code"),
    [(fault, int(fault.name[:3])) for fault in FAULTS if fault.name[:3].isdigit() and "then" not in fault.name],
    ids=str,
)
async def test_a_refusal_has_the_status_of_its_name_and_the_connection_stays(fault: Fault, code: int) -> None:
    async with provider() as served:
        served.behave(fault)
        client = await Client.connect(served)
        assert [(await client.ask(stream=True)).status for _ in range(2)] == [code, code]
        await client.leave()
    assert served.connections == 1


@pytest.mark.parametrize("whose", TOO_LONG)
async def test_a_prompt_is_too_long_in_everyones_words(whose: str) -> None:
    code, body = TOO_LONG[whose]
    async with provider() as served:
        reply = await ask(served, refusals.too_long(whose))
    assert (reply.status, reply.json) == (code, body)
    assert code in {400, 422}


async def test_a_refused_key_is_quoted_in_body_and_header() -> None:
    async with provider() as served:
        reply = await ask(served, refusals.unauthorized())
    assert reply.status == 401
    assert f"Incorrect API key provided: {KEY}." in reply.json["error"]["message"]
    assert KEY in (reply.header("www-authenticate") or "")


async def test_retry_after_is_missing_seconds_or_a_date() -> None:
    async with provider() as served:
        assert (await ask(served, refusals.rate_limited())).header("retry-after") is None
        assert (await ask(served, refusals.rate_limited("7"))).header("retry-after") == "7"
        assert (await ask(served, refusals.unavailable(9))).header("retry-after") == "9"
        date = (await ask(served, refusals.rate_limited_until(3600))).header("retry-after")
    assert date is not None
    assert date.endswith(" GMT")
    assert parsedate_to_datetime(date).tzinfo is not None


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fault", "code", "end"),
    [
        (faults.reset_before_headers(), 0, "reset"),
        (faults.hang_up_before_headers(), 0, "closed"),
        (faults.reset_after(0), 200, "reset"),
        (faults.reset_after(3), 200, "reset"),
        (faults.silent(), 0, "waiting"),
        (faults.stalled(0), 200, "waiting"),
        (faults.stalled(3), 200, "waiting"),
        (faults.bad_chunk(), 200, "nonsense"),
        (faults.no_http(), 0, "nonsense"),
        (faults.endless(), 200, "enough"),
        (faults.cut(3), 200, "whole"),
        (faults.cut_at_eof(3), 200, "whole"),
    ],
    ids=str,
)
async def test_an_answer_ends_as_its_fault_says(fault: Fault, code: int, end: str, stream: bool) -> None:
    async with provider() as served:

        def expected() -> bytes:
            return b"".join(Answer().parts(served.chats[0])[: COUNTS.get(fault.name, 0)])

        def is_last(reply: Reply) -> bool:
            return bool(served.chats) and (reply.status, reply.body) == (code, expected())

        reply = await ask(served, fault, stream=stream, last=is_last if end == "waiting" else None)
        seen = await served.request()
        await seen.over.wait()
    assert (reply.status, reply.end) == (code, end)
    assert seen.fate == FATES[end]
    if end != "enough":
        assert reply.body == expected()


async def test_a_stream_may_end_without_its_end() -> None:
    async with provider() as served:
        no_done = await ask(served, faults.no_done(), stream=True, usage=False)
        no_finish = await ask(served, faults.cut(3), stream=True)
        at_eof = await ask(served, faults.cut_at_eof(3), stream=True)
    assert no_done.data[-1] != "[DONE]"
    assert no_done.chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert no_finish.chunks[-1]["choices"][0]["finish_reason"] is None
    assert no_finish.body == at_eof.body
    assert (at_eof.header("transfer-encoding"), at_eof.header("content-length")) == (None, None)
    assert at_eof.header("connection") == "close"


async def test_slowness_comes_before_the_headers_or_after_them() -> None:
    async with provider() as served:
        slow = behaviour.slow_first_token(60)
        begun = await ask(served, slow, stream=True, last=lambda reply: reply.status == 200)
        assert (begun.end, begun.body) == ("waiting", b"")
        nothing = await ask(served, behaviour.late(60, ok()), stream=True, last=lambda _reply: True)
        assert (nothing.end, nothing.status) == ("waiting", 0)
        late = await ask(served, behaviour.late(0.01, ok()), stream=True)
        paced = await ask(served, ok(Answer(chunks=2, first_s=0.01, delay_s=0.01)), stream=True)
    assert late.data[-1] == paced.data[-1] == "[DONE]"


@pytest.mark.parametrize("code", [100, 103])
async def test_an_informational_answer_comes_first(code: int) -> None:
    async with provider() as served:
        reply = await ask(served, behaviour.informed(code, ok()))
    assert (reply.informational, reply.status) == ([code], 200)


DRESSED = [
    *(sse_faults.split(where) for where in Split),
    *(sse_faults.line_ends(end) for end in (b"\r\n", b"\r")),
    sse_faults.at_once(),
    sse_faults.comments(),
    sse_faults.more_fields(),
    sse_faults.no_space(),
]


@pytest.mark.parametrize("fault", DRESSED, ids=str)
async def test_a_stream_in_unusual_clothes_says_the_same(fault: Fault) -> None:
    async with provider() as served:
        usual, reply = await ask(served, ok(), stream=True), await ask(served, fault, stream=True)
        document = await ask(served, fault)
    assert [chunk["choices"] for chunk in reply.chunks] == [chunk["choices"] for chunk in usual.chunks]
    assert reply.data[-1] == "[DONE]"
    assert document.json["usage"] == Answer().figures()


async def test_the_clothes_are_unusual_indeed() -> None:
    async with provider() as served:
        crlf = (await ask(served, sse_faults.line_ends(), stream=True)).body
        assert crlf.count(b"\r\n") == crlf.count(b"\n") > 0
        assert b"\n" not in (await ask(served, sse_faults.line_ends(b"\r"), stream=True)).body
        assert (await ask(served, sse_faults.comments(), stream=True)).body.startswith(
            b": OPENROUTER PROCESSING\n\ndata:"
        )
        assert b"data: " not in (await ask(served, sse_faults.no_space(), stream=True)).body
        fields = (await ask(served, sse_faults.more_fields(), stream=True)).body
        assert fields.startswith(b"event: message\nid: 0\nretry: 5\ndata: ")


async def test_events_are_split_at_the_places_named() -> None:
    async with provider() as served:
        event = (await ask(served, sse_faults.split(Split.EVENT), stream=True)).reads
        character = (await ask(served, sse_faults.split(Split.CHARACTER), stream=True)).reads
        feeds = (await ask(served, sse_faults.split(Split.LINE_FEEDS), stream=True)).reads
        every = (await ask(served, sse_faults.split(Split.EVERY_BYTE), stream=True)).reads
        once = (await ask(served, sse_faults.at_once(), stream=True)).reads
    assert any(read.endswith(b'"content":"') for read in event)
    assert any(read[0] & 0xC0 == 0x80 for read in character)
    assert all(read.endswith(b"\n") and not read.endswith(b"\n\n") for read in feeds[:-1])
    assert all(len(read) == 1 for read in every)
    assert len(once) == 1


async def test_a_bad_event_stands_between_good_ones() -> None:
    async with provider() as served:
        reply = await ask(served, sse_faults.bad_event(2), stream=True)
    assert reply.data[-1] == "[DONE]"
    with pytest.raises(json.JSONDecodeError):
        json.loads(reply.data[2])
    assert json.loads(reply.data[3])["choices"]


@pytest.mark.parametrize(("style", "done"), [(style, done) for style in ErrorEvent for done in (False, True)])
async def test_an_error_may_come_in_the_middle_of_a_stream(style: ErrorEvent, done: bool) -> None:
    async with provider() as served:
        reply = await ask(served, sse_faults.error_event(1, style, done=done), stream=True)
        alone = await ask(served, sse_faults.error_event(0, style), stream=True)
    assert reply.status == 200
    assert [bool(chunk.get("error")) for chunk in reply.chunks] == [False, True]
    assert (reply.data[-1] == "[DONE]") is done
    assert len(alone.data) == 1
    assert alone.body.startswith(b"event: error\n") is (style is ErrorEvent.ANTHROPIC)


async def test_too_much_is_sent_as_asked() -> None:
    async with provider() as served:
        assert len((await ask(served, faults.huge(4_000_000))).body) > 4_000_000
        stream = await ask(served, faults.huge(4_000_000), stream=True)
        assert max(map(len, stream.data)) > 4_000_000
        assert len((await ask(served, faults.huge_header())).header("x-huge") or "") == 100_000
        assert len((await ask(served, faults.many_headers())).headers) > 5000


async def test_an_answer_may_not_be_what_was_asked_for() -> None:
    async with provider() as served:
        html = await ask(served, faults.html(), stream=True)
        document = await ask(served, faults.no_stream(), stream=True)
        stream = await ask(served, faults.unasked_stream())
        error = await ask(served, faults.error_in_200())
        empty = await ask(served, faults.empty())
        lengths = await ask(served, faults.two_lengths())
    assert (html.status, html.header("content-type")) == (200, "text/html")
    assert document.json["object"] == "chat.completion"
    assert stream.data[-1] == "[DONE]"
    assert (error.status, error.json["error"]["code"]) == (200, 502)
    assert (empty.status, empty.body) == (200, b"")
    assert (lengths.header("content-length"), lengths.header("transfer-encoding")) == ("5", "chunked")


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_may_be_compressed(stream: bool) -> None:
    async with provider() as served:
        reply = await ask(served, faults.zipped(), stream=stream)
    assert reply.header("content-encoding") == "gzip"
    plain = gzip.decompress(reply.body)
    assert plain.endswith(b"data: [DONE]\n\n") if stream else json.loads(plain)["usage"]


async def test_a_redirect_names_another_who_sees_whether_it_was_followed() -> None:
    async with provider() as served, provider() as other:
        reply = await ask(served, faults.redirect(f"{other.url}/chat/completions"))
        assert (reply.status, reply.header("location")) == (302, f"{other.url}/chat/completions")
        assert other.requests == []


async def test_a_provider_that_is_away_refuses_and_comes_back_to_its_port() -> None:
    async with provider() as served:
        client, port = await Client.connect(served), served.port
        assert (await client.ask()).status == 200
        await served.go_away()
        assert (await client.ask()).end == "reset"
        assert served.open_connections == 0
        for _ in range(3):
            with pytest.raises(ConnectionRefusedError):
                await Client.connect(served)
        await served.come_back()
        assert (await ask(served)).status == 200
        assert served.port == port
        await client.leave()


async def test_a_provider_that_is_away_may_keep_its_connections() -> None:
    async with provider() as served:
        client = await Client.connect(served)
        await client.ask()
        await served.go_away(hang_up=False)
        assert (await client.ask()).status == 200
        with pytest.raises(ConnectionRefusedError):
            await Client.connect(served)
        await client.leave()


async def test_a_client_that_leaves_is_noticed_though_nothing_is_being_said() -> None:
    async with provider() as served:
        served.behave(faults.silent())
        client = await Client.connect(served)
        asking = asyncio.ensure_future(client.ask())
        seen = await served.request()
        assert not seen.over.is_set()
        await client.leave()
        await seen.over.wait()
        assert seen.fate is Fate.LEFT
        assert (await asking).end in {"closed", "reset"}


async def test_all_of_it_works_over_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = authority.client()
    async with provider(tls=authority.server("127.0.0.1")) as served:
        assert served.url.startswith("https://")
        assert (await ask(served, ok(checked()), stream=True, tls=tls)).end == "whole"
        assert (await ask(served, faults.reset_after(2), stream=True, tls=tls)).end == "reset"
        assert (await ask(served, faults.silent(), tls=tls, last=lambda _reply: True)).end == "waiting"
        await served.requests[-1].over.wait()
        assert [seen.fate for seen in served.requests] == [Fate.ANSWERED, Fate.BROKEN, Fate.LEFT]


async def test_what_is_no_http_costs_its_connection_only() -> None:
    async with provider() as served:
        for nonsense in (b"hello\r\n\r\n", b"POST / HTTP/1.1\r\ncontent-length: many\r\n\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(nonsense)
            assert await reader.read() == b""
            writer.close()
        assert (await ask(served)).status == 200


async def test_a_faulty_fault_fails_its_test() -> None:
    async def act(_exchange: object) -> None:
        raise LookupError("a mistake in a test")

    with pytest.raises(LookupError, match="a mistake"):
        async with provider() as served:
            await ask(served, Fault("faulty", "Cannot do it.", act))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", FAULTS, ids=str)
async def test_closing_breaks_off_whatever_is_being_done(fault: Fault, stream: bool) -> None:
    async with provider() as served:
        served.behave(fault)
        client = await Client.connect(served)
        asking = asyncio.ensure_future(client.ask(stream=stream))
        seen = await served.request()
    assert seen.fault == fault.name
    assert seen.over.is_set()
    assert served.open_connections == 0
    await asking
    await client.leave()


def test_each_fault_has_a_name_of_its_own_and_one_line_about_it() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    assert all(fault.description.endswith(".") and "\n" not in fault.description for fault in FAULTS)
    assert not any("|" in fault.name + fault.description for fault in FAULTS)  # they become rows of a table
