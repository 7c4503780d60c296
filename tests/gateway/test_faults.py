from __future__ import annotations

import gzip
import json
from email.utils import parsedate_to_datetime

import pytest

from gateway import behaviour, faults, refusals
from gateway.answers import Answer
from gateway.behaviour import Fault, ok
from gateway.every_fault import FAULTS
from gateway.provider_client import KEY, Client, Reply, ask
from gateway.provider_exchange import TELLTALES, Fate
from gateway.provider_server import provider
from gateway.refusals import TOO_LONG, status

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


async def test_too_much_is_sent_as_asked() -> None:
    async with provider() as served:
        assert len((await ask(served, faults.huge(4_000_000))).body) > 4_000_000
        stream = await ask(served, faults.huge(4_000_000), stream=True)
        assert max(map(len, stream.data)) > 4_000_000
        assert len((await ask(served, faults.huge_header())).header("x-huge") or "") == 100_000
        assert len((await ask(served, faults.many_headers())).headers) > 1000


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


def test_each_fault_has_a_name_of_its_own_and_one_line_about_it() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    assert all(fault.description.endswith(".") and "\n" not in fault.description for fault in FAULTS)
    assert not any("|" in fault.name + fault.description for fault in FAULTS)  # they become rows of a table
