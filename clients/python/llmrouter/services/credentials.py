"""CredentialService of the protos, for both clients."""

# Made from the protos by protoc_gen_services.py: do not edit.

from __future__ import annotations

from typing import TYPE_CHECKING

from llmrouter.v2.credential_service_pb2 import GetCredentialRequest, GetCredentialResponse

if TYPE_CHECKING:
    from llmrouter.aio_calls import AsyncChannel
    from llmrouter.calls import Channel, Headers

_SERVICE = "/llmrouter.v2.CredentialService/"


class CredentialService:
    """Hands credentials to the internal services that call providers themselves.

    Needs the role service; over gRPC only, never as JSON. Can also fail with UNAUTHENTICATED, ROLE_REQUIRED,
    UNAVAILABLE or DEADLINE_EXCEEDED.
    """

    def __init__(self, channel: Channel) -> None:
        self.GetCredential = channel.unary(_SERVICE + "GetCredential", GetCredentialRequest, GetCredentialResponse)
        """As get_credential, with the messages of the protos."""

    def get_credential(
        self,
        *,
        user_id: str,
        provider_id: str,
        decision_id: str = "",
        timeout: float | None = None,
        headers: Headers | None = None,
    ) -> GetCredentialResponse:
        """Returns the key to use for a user at a provider: the user's own active one, else, for a provider
        without BYOK, the operator's platform key.

        Answered only when an audit row says who read it, for whom and for which decision.

        Errors: INVALID_FIELD; RESOURCE_NOT_FOUND when there is no such provider, or neither key.

        user_id: UUID of the user on whose behalf the provider is called.
        provider_id: UUID of the provider.
        decision_id: UUID of the routing decision that led to it. Default none.
        """
        request = GetCredentialRequest(user_id=user_id, provider_id=provider_id, decision_id=decision_id)
        return self.GetCredential(request, timeout=timeout, metadata=headers)


class AsyncCredentialService:
    """Hands credentials to the internal services that call providers themselves.

    Needs the role service; over gRPC only, never as JSON. Can also fail with UNAUTHENTICATED, ROLE_REQUIRED,
    UNAVAILABLE or DEADLINE_EXCEEDED.
    """

    def __init__(self, channel: AsyncChannel) -> None:
        self.GetCredential = channel.unary(_SERVICE + "GetCredential", GetCredentialRequest, GetCredentialResponse)
        """As get_credential, with the messages of the protos."""

    async def get_credential(
        self,
        *,
        user_id: str,
        provider_id: str,
        decision_id: str = "",
        timeout: float | None = None,
        headers: Headers | None = None,
    ) -> GetCredentialResponse:
        """Returns the key to use for a user at a provider: the user's own active one, else, for a provider
        without BYOK, the operator's platform key.

        Answered only when an audit row says who read it, for whom and for which decision.

        Errors: INVALID_FIELD; RESOURCE_NOT_FOUND when there is no such provider, or neither key.

        user_id: UUID of the user on whose behalf the provider is called.
        provider_id: UUID of the provider.
        decision_id: UUID of the routing decision that led to it. Default none.
        """
        request = GetCredentialRequest(user_id=user_id, provider_id=provider_id, decision_id=decision_id)
        return await self.GetCredential(request, timeout=timeout, metadata=headers)
