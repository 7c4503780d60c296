"""Every RPC with messages of valid shape and hostile content, as every role, and with bytes that are no message."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf import message_factory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.again import wait_to_ask_again
from fuzz.conftest import CASES, IS_BOUNDED
from fuzz.hostile import TEXTS, messages
from fuzz.laws import check_status, check_text
from llmrouter.v2 import (
    audit_service_pb2,
    byok_service_pb2,
    credential_service_pb2,
    health_service_pb2,
    model_service_pb2,
    provider_service_pb2,
    routing_rule_service_pb2,
    routing_service_pb2,
    settings_service_pb2,
    usage_service_pb2,
)
from llmrouter_server.runtime.roles import METHOD_ROLES

if TYPE_CHECKING:
    from fuzz.conftest import Target

MODULES = (
    audit_service_pb2,
    byok_service_pb2,
    credential_service_pb2,
    health_service_pb2,
    model_service_pb2,
    provider_service_pb2,
    routing_rule_service_pb2,
    routing_service_pb2,
    settings_service_pb2,
    usage_service_pb2,
)
METHODS = {
    f"/{service.full_name}/{method.name}": method
    for module in MODULES
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
SHARE = max(5, CASES * 6 // 10 // len(METHODS))
DEADLINE_S = 15.0
GOOD = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.UNAUTHENTICATED,
}
PASSING = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
METADATA = st.dictionaries(
    st.sampled_from(["x-request-id", "traceparent", "tracestate", "x-user-id", "cookie", "x-http-code"]),
    st.sampled_from([text for text in TEXTS if re.fullmatch(r"[\x20-\x7e]*", text) and len(text) < 5000]),
    max_size=3,
)
fuzz = settings(
    max_examples=SHARE,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
    derandomize=IS_BOUNDED,
)


def test_every_rpc_is_fuzzed() -> None:
    assert set(METHODS) == set(METHOD_ROLES)
    assert {path.stem for path in Path(routing_service_pb2.__file__).parent.glob("*_service_pb2.py")} == {
        Path(module.__file__ or "").stem for module in MODULES
    }


def send(target: Target, path: str, sent: bytes, metadata: dict[str, str]) -> list[Any]:
    """Send, hold the outcome to the laws, and return the parts of the answer; none for an error."""
    parts, failed = ask(target, path, sent, metadata)
    if failed is not None and failed.code() in PASSING:
        wait_to_ask_again(target.stack, target.outcomes)
        parts, failed = ask(target, path, sent, metadata)
    outcome = "OK" if failed is None else refusal(failed, sent)
    target.outcomes[f"gRPC {outcome}"] += 1
    return parts


def ask(target: Target, path: str, sent: bytes, metadata: dict[str, str]) -> tuple[list[Any], Any]:
    """Return the parts of the answer, and the error if there is one."""
    method = METHODS[path]
    kind = message_factory.GetMessageClass(method.output_type)
    call = target.channel.unary_stream(path) if method.server_streaming else target.channel.unary_unary(path)
    try:
        answer = call(sent, metadata=tuple(metadata.items()), timeout=DEADLINE_S, wait_for_ready=True)
        return [kind.FromString(part) for part in (answer if method.server_streaming else [answer])], None
    except grpc.RpcError as error:
        return [], error


def refusal(error: Any, sent: bytes) -> str:
    """Return the code and reason of an error that is as it should be."""
    trailing = dict(error.trailing_metadata() or ())
    assert error.code() in GOOD, f"{error.code()}: {error.details()}"
    reason = check_status(trailing["grpc-status-details-bin"])
    check_text(f"{error.details()} {trailing}", str(sent))
    assert trailing["x-request-id"]
    return f"{error.code().name} {reason}"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", METHODS, ids=[path.rpartition("/")[2] for path in METHODS])
def test_hostile_messages(target: Target, path: str) -> None:
    allowed = sorted(role.value for role in METHOD_ROLES[path])

    @fuzz
    @given(
        messages(METHODS[path].input_type, target.ids),
        st.sampled_from([*allowed * 3, "user", "admin", "service"]),
        METADATA,
    )
    def run(message: Any, role: Any, metadata: dict[str, str]) -> None:
        token = target.token(role)
        parts = send(target, path, message.SerializeToString(), {"authorization": f"Bearer {token}", **metadata})
        if role == "user":  # a stranger: whatever is the owner's is not for them
            shown = " ".join(map(str, parts))
            assert str(target.owner) not in shown
            check_text(shown, str(message))

    run()


@pytest.mark.timeout(300)
def test_bytes_that_are_no_message(target: Target) -> None:
    @settings(fuzz, max_examples=SHARE * 4)
    @given(st.sampled_from(sorted(METHODS)), st.binary(max_size=200), st.sampled_from(["user", "admin", "service"]))
    def run(path: str, sent: bytes, role: Any) -> None:
        send(target, path, sent, {"authorization": f"Bearer {target.token(role)}"})

    run()
