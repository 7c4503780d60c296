"""The door of the gateway for requests: Envoy's external processing (ext_proc).

https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/service/ext_proc/v3/external_processor.proto
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from typing import TYPE_CHECKING, Any

import grpc

from llmrouter_server import errors
from llmrouter_server.gateway.chat import read_chat
from llmrouter_server.gateway.envoy_api import ProcessingRequest, ProcessingResponse, Value
from llmrouter_server.gateway.openai_errors import error_body
from llmrouter_server.gateway.plan import MOST_KEPT
from llmrouter_server.runtime import telemetry
from llmrouter_server.runtime.intake import if_unsent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from uuid import UUID

    from llmrouter_server.gateway.decision import Decider, Prepared
    from llmrouter_server.gateway.models import UsableModels
    from llmrouter_server.gateway.plan import Candidate, PlansUnderWay
    from llmrouter_server.runtime.auth import Caller, TokenVerifier
    from llmrouter_server.runtime.interceptor import Context

log = logging.getLogger(__name__)

SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"
PROCESS = f"/{SERVICE}/Process"
CHAT, MODELS = "/v1/chat/completions", "/v1/models"
DECIDE_S = 3.0
"""How long a decision may take; Envoy waits a little longer."""
LARGE_BODY = 65_536
"""Bytes from which a body is read beside the loop."""
ATTEMPTS_EACH = 4
"""At each candidate: it, it again, and the referee after both. See envoy/gateway_attempt.lua."""
USER_HEADER = "x-llmrouter-user-id"
NOT_FOR_PROVIDERS = ("authorization", "cookie", USER_HEADER)
REQUEST_ID_HEADER = "x-request-id"
"""Envoy's own, or the client's where envoy/entrance.lua found it good."""
HEADERS_READ = (":path", "authorization", USER_HEADER, REQUEST_ID_HEADER)


class ExtProc:
    """Answers chat requests with plans, lists of models with themselves, and either with an error."""

    def __init__(self, verifier: TokenVerifier, decider: Decider, models: UsableModels, plans: PlansUnderWay) -> None:
        self._verifier, self._decider, self._models, self._plans = verifier, decider, models, plans

    def handler(self) -> grpc.GenericRpcHandler:
        """Return what a server takes."""
        process = grpc.stream_unary_rpc_method_handler(
            self._process, ProcessingRequest.FromString, ProcessingResponse.SerializeToString
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"Process": process})

    async def _process(self, _: object, context: Context) -> Any:  # noqa: ANN401 - a message made at run time
        """Answer one HTTP request: headers and body, which come together, in one message, which ends the stream.

        One that stayed open would take the answer with it when this server goes away.
        """
        started = time.perf_counter()
        first = await context.read()
        if first is grpc.aio.EOF or not first.HasField("request_headers"):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the headers of a request come first")
        headers = {
            each.key: (each.raw_value or each.value.encode()).decode("latin-1")
            for each in first.request_headers.headers.headers
            if each.key in HEADERS_READ
        }
        path = headers.get(":path", "").partition("?")[0]
        if path != CHAT:
            return await self._guarded(path, headers, self._list(path, headers))
        body = b""
        if not first.request_headers.end_of_stream:
            second = await context.read()
            if second is grpc.aio.EOF:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the body of a request follows its headers")
            body = second.request_body.body
        answer = await self._guarded(CHAT, headers, self._chat(headers, body, context))
        telemetry.histogram(telemetry.SECONDS, CHAT).observe(time.perf_counter() - started)
        return answer

    async def _guarded(self, method: str, headers: Mapping[str, str], work: Any) -> Any:  # noqa: ANN401 - a message made at run time
        """Answer, in time, with what the work returns or with the error that it raises."""
        request_id = headers.get(REQUEST_ID_HEADER)
        counted = CHAT if method == CHAT else MODELS
        try:
            async with asyncio.timeout(DECIDE_S):
                answer = await work
        except errors.DomainError as raised:
            error = raised
        except TimeoutError:
            error = errors.unavailable()
        except Exception:
            log.exception("unhandled exception", extra={"method": method, "request_id": request_id})
            error = errors.internal()
        else:
            telemetry.counter(telemetry.REQUESTS, counted, "OK").inc()
            return answer
        telemetry.counter(telemetry.REQUESTS, counted, error.code.name).inc()
        told = {"reason": error.reason, "why": error.message, "request_id": request_id}
        log.info("chat request refused", extra=told)
        status, body, headers = error_body(error)
        return _immediate(status, body, headers)

    async def _caller(self, headers: Mapping[str, str]) -> Caller:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise errors.unauthenticated("a valid bearer token is required")
        return await self._verifier.verify(token.strip())

    async def _list(self, path: str, headers: Mapping[str, str]) -> Any:  # noqa: ANN401
        caller = await self._caller(headers)
        user_id = caller.acts_for(headers.get(USER_HEADER, ""))
        body = await self._models.answer(user_id, path.removeprefix(MODELS).strip("/"))
        return _immediate(200, body, {"content-type": "application/json"})

    async def _chat(self, headers: Mapping[str, str], body: bytes, context: Context) -> Any:  # noqa: ANN401
        caller = await self._caller(headers)
        user_id = caller.acts_for(headers.get(USER_HEADER, ""))
        chat = await asyncio.to_thread(read_chat, body) if len(body) > LARGE_BODY else read_chat(body)
        ready = await self._decider.decide(chat, user_id=user_id, reader_id=caller.user_id)
        # Broken off before, the decider itself takes back what it had set up. What was sent, and not taken, is recorded
        # by estimate when it expires.
        undo = functools.partial(self._decider.undo, ready.plan)
        if not if_unsent(undo):
            await _begin_answer(context, undo)
        self._plans.add(ready.plan)
        return _go_on(ready, chat.rest)


async def _begin_answer(context: Context, undo: Callable[[], Awaitable[None]]) -> None:
    """See whether anybody is there, where nobody hears whether the answer itself was sent."""
    try:
        await context.send_initial_metadata(())
    except (grpc.aio.InternalError, asyncio.CancelledError):
        await asyncio.shield(undo())
        raise asyncio.CancelledError from None


def _go_on(ready: Prepared, rest: bytes) -> Any:  # noqa: ANN401
    plan = ready.plan
    answer = ProcessingResponse()
    common = answer.request_headers.response
    common.status = common.CONTINUE_AND_REPLACE  # the body too, of which no more is asked
    common.body_mutation.body = rest
    common.clear_route_cache = True  # a stream has a route of its own, and the route's cluster is the plan's
    retries = ATTEMPTS_EACH * len(plan.candidates) + 1
    _set(common, "x-envoy-max-retries", str(retries))
    _set(common, "x-llmrouter-credentials", ready.credentials)
    if plan.stream:  # its route says how long it may be silent, at first too: of two such times Envoy forgets one
        _set(common, "x-llmrouter-stream", "slow" if ready.is_slow else "1")
    else:
        _set(common, "x-envoy-upstream-rq-per-try-timeout-ms", str(plan.first_byte_ms))
    common.header_mutation.remove_headers.extend(NOT_FOR_PROVIDERS)
    metadata = answer.dynamic_metadata.fields
    told = metadata["llmrouter.plan"].struct_value
    _fill(told.fields, plan.frame_to_dict())
    told.fields["candidates"].list_value.values.extend(map(_candidate, plan.candidates))
    metadata["llmrouter.route"].CopyFrom(_first_step(plan.candidates[0].provider_id))
    return answer


def _fill(fields: Any, values: Mapping[str, str | int | bool]) -> None:  # noqa: ANN401
    """Do what Struct.update does, for plain values alone and in a third of its time."""
    for name, value in values.items():
        if isinstance(value, str):
            fields[name].string_value = value
        elif isinstance(value, bool):
            fields[name].bool_value = value
        else:
            fields[name].number_value = value


@functools.lru_cache(maxsize=MOST_KEPT)
def _candidate(candidate: Candidate) -> Any:  # noqa: ANN401
    """Return a candidate as a plan has it. Making that is most of what a plan costs, and plans repeat candidates."""
    value = Value()
    value.struct_value.update(candidate.to_dict())
    return value


@functools.lru_cache(maxsize=MOST_KEPT)
def _first_step(provider_id: UUID) -> Any:  # noqa: ANN401
    cluster = f"provider-{provider_id}"
    value = Value()
    value.struct_value.update(
        {
            "candidate": 1,
            "step": "attempt",
            "priority_groups": [{"name": cluster, "clusters": [{"cluster_name": cluster, "weight": 1}]}],
        }
    )
    return value


def _set(common: Any, name: str, value: str) -> None:  # noqa: ANN401
    option = common.header_mutation.set_headers.add()
    option.header.key, option.header.raw_value = name, value.encode("latin-1")
    option.append_action = option.OVERWRITE_IF_EXISTS_OR_ADD


def _immediate(status: int, body: bytes, headers: Mapping[str, str]) -> Any:  # noqa: ANN401
    answer = ProcessingResponse()
    answer.immediate_response.status.code = status
    answer.immediate_response.body = body
    for name, value in headers.items():
        _set_immediate(answer.immediate_response, name, value)
    answer.dynamic_metadata.update({"llmrouter.answer": {"is_whole": True}})
    return answer


def _set_immediate(immediate: Any, name: str, value: str) -> None:  # noqa: ANN401
    option = immediate.headers.set_headers.add()
    option.header.key, option.header.raw_value = name, value.encode("latin-1")
    option.append_action = option.OVERWRITE_IF_EXISTS_OR_ADD
