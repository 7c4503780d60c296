"""ModelService of the protos, for both clients."""

# Made from the protos by protoc_gen_services.py: do not edit.

from __future__ import annotations

from typing import TYPE_CHECKING

from llmrouter.pages import AsyncPages, Pages
from llmrouter.v2.model_pb2 import Model
from llmrouter.v2.model_service_pb2 import (
    CreateModelRequest,
    DisableModelRequest,
    GetModelRequest,
    ListModelsRequest,
    ListModelsResponse,
    UpdateModelRequest,
)
from llmrouter.v2.power_level_pb2 import PowerLevel

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llmrouter.aio_calls import AsyncChannel
    from llmrouter.calls import Channel, Headers

_SERVICE = "/llmrouter.v2.ModelService/"


class ModelService:
    """The models of the catalogue.

    Reading is for every user, changing needs the role admin. Every RPC can also fail with UNAUTHENTICATED,
    ROLE_REQUIRED, UNAVAILABLE or DEADLINE_EXCEEDED.
    """

    def __init__(self, channel: Channel) -> None:
        self.ListModels = channel.unary(_SERVICE + "ListModels", ListModelsRequest, ListModelsResponse)
        """As list_models, with the messages of the protos."""
        self.GetModel = channel.unary(_SERVICE + "GetModel", GetModelRequest, Model)
        """As get_model, with the messages of the protos."""
        self.CreateModel = channel.unary(_SERVICE + "CreateModel", CreateModelRequest, Model)
        """As create_model, with the messages of the protos."""
        self.UpdateModel = channel.unary(_SERVICE + "UpdateModel", UpdateModelRequest, Model)
        """As update_model, with the messages of the protos."""
        self.DisableModel = channel.unary(_SERVICE + "DisableModel", DisableModelRequest, Model)
        """As disable_model, with the messages of the protos."""

    def list_models(
        self,
        *,
        power_level: PowerLevel.ValueType = PowerLevel.POWER_LEVEL_UNSPECIFIED,
        provider_id: str = "",
        page_size: int = 0,
        page_token: str = "",
        include_disabled: bool = False,
        timeout: float | None = None,
        headers: Headers | None = None,
    ) -> Pages[Model, ListModelsResponse]:
        """Lists the enabled models of enabled providers, by power level, then provider name, then model name.

        Errors: INVALID_FIELD for a provider_id that is no UUID, or a page_size or page_token out of range.

        A provider_id that does not exist gives an empty list.

        power_level: Only models of this level. Default: all.
        provider_id: Only models of this provider, a UUID. Default: all.
        page_size: The most models in one answer, 1 to 500. Default (0) 100.
        page_token: The `next_page_token` of the answer before; empty for the first page.
        include_disabled: Also disabled models, and those of disabled providers. Needs the role admin. Default
            false.
        """

        def fetch(token: str) -> ListModelsResponse:
            request = ListModelsRequest(
                power_level=power_level,
                provider_id=provider_id,
                page_size=page_size,
                page_token=token,
                include_disabled=include_disabled,
            )
            return self.ListModels(request, timeout=timeout, metadata=headers)

        return Pages(fetch, page_token, lambda page: page.models, lambda page: page.next_page_token)

    def get_model(self, model_id: str, *, timeout: float | None = None, headers: Headers | None = None) -> Model:
        """Returns a model, enabled or not.

        Errors: INVALID_FIELD; RESOURCE_NOT_FOUND.

        model_id: UUID of the model, from the path.
        """
        request = GetModelRequest(model_id=model_id)
        return self.GetModel(request, timeout=timeout, metadata=headers)

    def create_model(
        self,
        *,
        provider_id: str,
        model_name: str,
        power_level: PowerLevel.ValueType,
        display_name: str | None = None,
        input_cost_per_1m: float | None = None,
        output_cost_per_1m: float | None = None,
        avg_latency_ms: int | None = None,
        quality_score: float | None = None,
        supports_streaming: bool | None = None,
        max_context_tokens: int | None = None,
        capabilities: Iterable[str] = (),
        is_enabled: bool | None = None,
        timeout: float | None = None,
        headers: Headers | None = None,
    ) -> Model:
        """Creates a model.

        Answers HTTP 201.

        Errors: INVALID_FIELD; RESOURCE_NOT_FOUND when there is no such provider; ALREADY_EXISTS when the
        provider has a model of this name.

        provider_id: UUID of its provider.
        model_name: The provider's own identifier of the model, 1 to 200 characters, unique within the provider.
        display_name: The name to show to people, 1 to 200 characters. Default: model_name.
        power_level: Its power level.
        input_cost_per_1m: US dollars per million input tokens, 0 to 999,999 with at most 4 decimals. Default 0.
        output_cost_per_1m: US dollars per million output tokens, 0 to 999,999 with at most 4 decimals. Default
            0.
        avg_latency_ms: Typical latency of an answer, 0 to 3,600,000 milliseconds. Default 500.
        quality_score: Quality rating, 0 to 10 with at most 2 decimals. Default 5.
        supports_streaming: Whether it can stream its answer. Default true.
        max_context_tokens: The most tokens of prompt and answer together, 1 to 1,000,000,000. Default 4096.
        capabilities: What it can do: any of `chat`, `code`, `vision`, `tools`, `json`, `reasoning`,
            `streaming`. `streaming` follows supports_streaming. Default: none but that.
        is_enabled: Whether it takes part in routing. Default true.
        """
        request = CreateModelRequest(
            provider_id=provider_id,
            model_name=model_name,
            display_name=display_name,
            power_level=power_level,
            input_cost_per_1m=input_cost_per_1m,
            output_cost_per_1m=output_cost_per_1m,
            avg_latency_ms=avg_latency_ms,
            quality_score=quality_score,
            supports_streaming=supports_streaming,
            max_context_tokens=max_context_tokens,
            capabilities=capabilities,
            is_enabled=is_enabled,
        )
        return self.CreateModel(request, timeout=timeout, metadata=headers)

    def update_model(
        self,
        model_id: str,
        *,
        model_name: str | None = None,
        display_name: str | None = None,
        power_level: PowerLevel.ValueType = PowerLevel.POWER_LEVEL_UNSPECIFIED,
        input_cost_per_1m: float | None = None,
        output_cost_per_1m: float | None = None,
        avg_latency_ms: int | None = None,
        quality_score: float | None = None,
        supports_streaming: bool | None = None,
        max_context_tokens: int | None = None,
        capabilities: Iterable[str] = (),
        is_enabled: bool | None = None,
        etag: str = "",
        timeout: float | None = None,
        headers: Headers | None = None,
    ) -> Model:
        """Changes the given fields of a model and leaves the others as they are.

        What was used before keeps its price.

        Errors: INVALID_FIELD; RESOURCE_NOT_FOUND; ALREADY_EXISTS when the provider has a model of the new name;
        ETAG_MISMATCH.

        model_id: UUID of the model, from the path.
        model_name: New identifier, 1 to 200 characters.
        display_name: New name to show, 1 to 200 characters.
        power_level: New power level.
        input_cost_per_1m: New price of input tokens, 0 to 999,999 with at most 4 decimals.
        output_cost_per_1m: New price of output tokens, 0 to 999,999 with at most 4 decimals.
        avg_latency_ms: New typical latency, 0 to 3,600,000 milliseconds.
        quality_score: New quality rating, 0 to 10 with at most 2 decimals.
        supports_streaming: Whether it can stream.
        max_context_tokens: New context size, 1 to 1,000,000,000 tokens.
        capabilities: New capabilities; given, they replace the old ones as a whole. An empty list leaves them
            as they are.
        is_enabled: Enable or disable.
        etag: The etag of the model as it was read: the change is made only if it is still that. Default:
            whatever it is.
        """
        request = UpdateModelRequest(
            model_id=model_id,
            model_name=model_name,
            display_name=display_name,
            power_level=power_level,
            input_cost_per_1m=input_cost_per_1m,
            output_cost_per_1m=output_cost_per_1m,
            avg_latency_ms=avg_latency_ms,
            quality_score=quality_score,
            supports_streaming=supports_streaming,
            max_context_tokens=max_context_tokens,
            capabilities=capabilities,
            is_enabled=is_enabled,
            etag=etag,
        )
        return self.UpdateModel(request, timeout=timeout, metadata=headers)

    def disable_model(
        self, model_id: str, *, etag: str = "", timeout: float | None = None, headers: Headers | None = None
    ) -> Model:
        """Disables a model: it takes no part in routing until it is enabled again.

        Nothing is erased; doing it twice is no error.

        Errors: INVALID_FIELD; RESOURCE_NOT_FOUND; ETAG_MISMATCH.

        model_id: UUID of the model, from the path.
        etag: As in UpdateModelRequest.
        """
        request = DisableModelRequest(model_id=model_id, etag=etag)
        return self.DisableModel(request, timeout=timeout, metadata=headers)


class AsyncModelService:
    """The models of the catalogue.

    Reading is for every user, changing needs the role admin. Every RPC can also fail with UNAUTHENTICATED,
    ROLE_REQUIRED, UNAVAILABLE or DEADLINE_EXCEEDED.
    """

    def __init__(self, channel: AsyncChannel) -> None:
        self.ListModels = channel.unary(_SERVICE + "ListModels", ListModelsRequest, ListModelsResponse)
        """As list_models, with the messages of the protos."""
        self.GetModel = channel.unary(_SERVICE + "GetModel", GetModelRequest, Model)
        """As get_model, with the messages of the protos."""
        self.CreateModel = channel.unary(_SERVICE + "CreateModel", CreateModelRequest, Model)
        """As create_model, with the messages of the protos."""
        self.UpdateModel = channel.unary(_SERVICE + "UpdateModel", UpdateModelRequest, Model)
        """As update_model, with the messages of the protos."""
        self.DisableModel = channel.unary(_SERVICE + "DisableModel", DisableModelRequest, Model)
        """As disable_model, with the messages of the protos."""

    def list_models(
        self,
        *,
        power_level: PowerLevel.ValueType = PowerLevel.POWER_LEVEL_UNSPECIFIED,
        provider_id: str = "",
        page_size: int = 0,
        page_token: str = "",
        include_disabled: bool = False,
        timeout: float | None = None,
        headers: Headers | None = None,
    ) -> AsyncPages[Model, ListModelsResponse]:
        """Lists the enabled models of enabled providers, by power level, then provider name, then model name.

        Errors: INVALID_FIELD for a provider_id that is no UUID, or a page_size or page_token out of range.

        A provider_id that does not exist gives an empty list.

        power_level: Only models of this level. Default: all.
        provider_id: Only models of this provider, a UUID. Default: all.
        page_size: The most models in one answer, 1 to 500. Default (0) 100.
        page_token: The `next_page_token` of the answer before; empty for the first page.
        include_disabled: Also disabled models, and those of disabled providers. Needs the role admin. Default
            false.
        """

        async def fetch(token: str) -> ListModelsResponse:
            request = ListModelsRequest(
                power_level=power_level,
                provider_id=provider_id,
                page_size=page_size,
                page_token=token,
                include_disabled=include_disabled,
            )
            return await self.ListModels(request, timeout=timeout, metadata=headers)

        return AsyncPages(fetch, page_token, lambda page: page.models, lambda page: page.next_page_token)

    async def get_model(self, model_id: str, *, timeout: float | None = None, headers: Headers | None = None) -> Model:
        """Returns a model, enabled or not.

        Errors: INVALID_FIELD; RESOURCE_NOT_FOUND.

        model_id: UUID of the model, from the path.
        """
        request = GetModelRequest(model_id=model_id)
        return await self.GetModel(request, timeout=timeout, metadata=headers)

    async def create_model(
        self,
        *,
        provider_id: str,
        model_name: str,
        power_level: PowerLevel.ValueType,
        display_name: str | None = None,
        input_cost_per_1m: float | None = None,
        output_cost_per_1m: float | None = None,
        avg_latency_ms: int | None = None,
        quality_score: float | None = None,
        supports_streaming: bool | None = None,
        max_context_tokens: int | None = None,
        capabilities: Iterable[str] = (),
        is_enabled: bool | None = None,
        timeout: float | None = None,
        headers: Headers | None = None,
    ) -> Model:
        """Creates a model.

        Answers HTTP 201.

        Errors: INVALID_FIELD; RESOURCE_NOT_FOUND when there is no such provider; ALREADY_EXISTS when the
        provider has a model of this name.

        provider_id: UUID of its provider.
        model_name: The provider's own identifier of the model, 1 to 200 characters, unique within the provider.
        display_name: The name to show to people, 1 to 200 characters. Default: model_name.
        power_level: Its power level.
        input_cost_per_1m: US dollars per million input tokens, 0 to 999,999 with at most 4 decimals. Default 0.
        output_cost_per_1m: US dollars per million output tokens, 0 to 999,999 with at most 4 decimals. Default
            0.
        avg_latency_ms: Typical latency of an answer, 0 to 3,600,000 milliseconds. Default 500.
        quality_score: Quality rating, 0 to 10 with at most 2 decimals. Default 5.
        supports_streaming: Whether it can stream its answer. Default true.
        max_context_tokens: The most tokens of prompt and answer together, 1 to 1,000,000,000. Default 4096.
        capabilities: What it can do: any of `chat`, `code`, `vision`, `tools`, `json`, `reasoning`,
            `streaming`. `streaming` follows supports_streaming. Default: none but that.
        is_enabled: Whether it takes part in routing. Default true.
        """
        request = CreateModelRequest(
            provider_id=provider_id,
            model_name=model_name,
            display_name=display_name,
            power_level=power_level,
            input_cost_per_1m=input_cost_per_1m,
            output_cost_per_1m=output_cost_per_1m,
            avg_latency_ms=avg_latency_ms,
            quality_score=quality_score,
            supports_streaming=supports_streaming,
            max_context_tokens=max_context_tokens,
            capabilities=capabilities,
            is_enabled=is_enabled,
        )
        return await self.CreateModel(request, timeout=timeout, metadata=headers)

    async def update_model(
        self,
        model_id: str,
        *,
        model_name: str | None = None,
        display_name: str | None = None,
        power_level: PowerLevel.ValueType = PowerLevel.POWER_LEVEL_UNSPECIFIED,
        input_cost_per_1m: float | None = None,
        output_cost_per_1m: float | None = None,
        avg_latency_ms: int | None = None,
        quality_score: float | None = None,
        supports_streaming: bool | None = None,
        max_context_tokens: int | None = None,
        capabilities: Iterable[str] = (),
        is_enabled: bool | None = None,
        etag: str = "",
        timeout: float | None = None,
        headers: Headers | None = None,
    ) -> Model:
        """Changes the given fields of a model and leaves the others as they are.

        What was used before keeps its price.

        Errors: INVALID_FIELD; RESOURCE_NOT_FOUND; ALREADY_EXISTS when the provider has a model of the new name;
        ETAG_MISMATCH.

        model_id: UUID of the model, from the path.
        model_name: New identifier, 1 to 200 characters.
        display_name: New name to show, 1 to 200 characters.
        power_level: New power level.
        input_cost_per_1m: New price of input tokens, 0 to 999,999 with at most 4 decimals.
        output_cost_per_1m: New price of output tokens, 0 to 999,999 with at most 4 decimals.
        avg_latency_ms: New typical latency, 0 to 3,600,000 milliseconds.
        quality_score: New quality rating, 0 to 10 with at most 2 decimals.
        supports_streaming: Whether it can stream.
        max_context_tokens: New context size, 1 to 1,000,000,000 tokens.
        capabilities: New capabilities; given, they replace the old ones as a whole. An empty list leaves them
            as they are.
        is_enabled: Enable or disable.
        etag: The etag of the model as it was read: the change is made only if it is still that. Default:
            whatever it is.
        """
        request = UpdateModelRequest(
            model_id=model_id,
            model_name=model_name,
            display_name=display_name,
            power_level=power_level,
            input_cost_per_1m=input_cost_per_1m,
            output_cost_per_1m=output_cost_per_1m,
            avg_latency_ms=avg_latency_ms,
            quality_score=quality_score,
            supports_streaming=supports_streaming,
            max_context_tokens=max_context_tokens,
            capabilities=capabilities,
            is_enabled=is_enabled,
            etag=etag,
        )
        return await self.UpdateModel(request, timeout=timeout, metadata=headers)

    async def disable_model(
        self, model_id: str, *, etag: str = "", timeout: float | None = None, headers: Headers | None = None
    ) -> Model:
        """Disables a model: it takes no part in routing until it is enabled again.

        Nothing is erased; doing it twice is no error.

        Errors: INVALID_FIELD; RESOURCE_NOT_FOUND; ETAG_MISMATCH.

        model_id: UUID of the model, from the path.
        etag: As in UpdateModelRequest.
        """
        request = DisableModelRequest(model_id=model_id, etag=etag)
        return await self.DisableModel(request, timeout=timeout, metadata=headers)
