"""The synchronous client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self, TypeVar

import grpc

from llmrouter.attempt import usage_of as usage_of_answer
from llmrouter.calls import Channel
from llmrouter.connection import Connection
from llmrouter.failover import AskCredential, AskRoute, AskToken, CallProvider, Plan, Record, Step, drive, routed
from llmrouter.services import Services
from llmrouter.v2.routing_service_pb2 import RouteRequest

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from llmrouter.attempt import Attempt, Routed, Usage
    from llmrouter.verdict import Verdict

T = TypeVar("T")


class Client(Services):
    """Speaks to llmrouter over gRPC; safe to share between threads.

    Each attribute is a service: `client.routing.route(power_level=ECO)`. A failed call raises a LlmrouterError. Every
    call takes `timeout` (seconds) and `headers`.

    >>> with Client("127.0.0.1:50051", token=TOKEN) as client:
    ...     client.routing.route(power_level=ECO).primary.provider_name
    'Local vLLM'
    """

    def __init__(
        self,
        target: str,
        *,
        token: str | Callable[[], str],
        timeout: float | None = None,
        retries: bool = True,
        insecure: bool = False,
        root_certificates: bytes | None = None,
    ) -> None:
        """Prepare a connection, which is made with the first call.

        `token` is a JSON Web Token, or a function that returns one: it is asked before each call, and once more when
        the server has refused the token; RefreshingToken is one that remembers. The other arguments are those of
        Connection; ValueError when they make no sense.
        """
        connection = Connection(
            target=target,
            timeout=timeout,
            retries=retries,
            insecure=insecure,
            root_certificates=root_certificates,
        )
        self._target, credentials = target, connection.credentials
        self._grpc = (
            grpc.insecure_channel(connection.address, connection.options)
            if credentials is None
            else grpc.secure_channel(connection.address, credentials, connection.options)
        )
        self._channel = Channel(self._grpc, token, timeout)
        super().__init__(self._channel)

    def route_and_call(
        self,
        call: Callable[[Attempt], T],
        request: RouteRequest | None = None,
        *,
        credentials: bool = False,
        gateway: str | None = None,
        usage_of: Callable[[T], Usage | None] = usage_of_answer,
        verdict_of: Callable[[Exception], Verdict] | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> Routed[T]:
        """Make a decision, let `call` carry it out, and go on to the next model when that one fails.

        `call` is given an Attempt, calls the provider and returns whatever it likes; what it raises is judged by
        `verdict_of`, which by default is verdict.of_provider, or verdict.of_gateway with a gateway. Without
        `credentials` or `gateway` the program has its own keys.

        request: what to ask Route for. A service names the user, and then each attempt's usage is recorded.
        credentials: get the provider's key for each attempt. For services.
        gateway: call llmrouter's own gateway at this URL, for instance https://llm.example.com/v1, in place of the
            providers. It records the usage itself.
        usage_of: reads the tokens from an answer; by default from `usage`, in OpenAI's or Anthropic's shape. None: they
            are recorded as 0, estimated.
        request_id: the attempts are recorded as request_id/1, request_id/2, ...; at most 120 characters, and new for
            each call. Default: a UUID.
        timeout: seconds for the decision.

        AllAttemptsFailed when every model failed; a LlmrouterError when there was no decision or no credential; what
        `call` raised when that ends the walk.
        """
        plan = Plan(
            request=request or RouteRequest(),
            credentials=credentials,
            gateway=gateway,
            usage_of=usage_of,
            verdict_of=verdict_of,
            request_id=request_id,
        )

        def do(step: Step) -> object:
            match step:
                case AskRoute():
                    return self.routing.Route(step.request, timeout=timeout)
                case AskCredential():
                    return self.credentials.GetCredential(step.request)
                case AskToken():
                    return (self._channel.authorization()).removeprefix("Bearer ")
                case Record():
                    return self.usage.RecordUsage(step.request, timeout=step.timeout_s)
                case CallProvider():
                    return call(step.attempt)

        return drive(routed(plan), do)

    def close(self) -> None:
        """Close the connection; calls in flight are cancelled."""
        self._grpc.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._target}>"
