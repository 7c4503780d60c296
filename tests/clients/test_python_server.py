"""Both Python clients against a real server: lists, streams, changes, tokens and refusals."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from llmrouter import (
    ECO,
    PRECISION,
    AsyncClient,
    AsyncRefreshingToken,
    Client,
    EtagMismatch,
    InvalidField,
    NotFound,
    RateLimited,
    RecordUsageRequest,
    RefreshingToken,
    RequestTooLarge,
    RoleRequired,
    RoutingConfig,
    Unauthenticated,
)

if TYPE_CHECKING:
    from client_world import ClientWorld, OwnServer

RECORDS = 25


@pytest.fixture(scope="module")
async def spender(router: OwnServer) -> uuid.UUID:
    """A user with 25 usage records, made in one batch."""
    user_id, moment = uuid.uuid4(), datetime.now(UTC) - timedelta(minutes=1)
    async with router.client("service") as service:
        model = (await service.routing.route(power_level=ECO, user_id=str(user_id))).primary
        records = [
            RecordUsageRequest(
                user_id=str(user_id), request_id=f"r-{number}", model_id=model.model_id, input_tokens=number
            )
            for number in range(1, RECORDS)
        ]
        batch = await service.usage.batch_record_usage(records)
        assert [result.HasField("recorded") for result in batch.results] == [True] * (RECORDS - 1)
        one = await service.usage.record_usage(
            user_id=str(user_id), request_id="r-25", model_id=model.model_id, input_tokens=25, occurred_at=moment
        )
        assert not one.is_duplicate
    return user_id


async def test_a_list_is_iterated_over_page_by_page(router: OwnServer, spender: uuid.UUID) -> None:
    def in_a_thread() -> tuple[list[int], list[int], list[int]]:
        with Client(router.address, token=router.identity.mint("user", spender)) as user:
            listed = user.usage.list_usage_records(page_size=10)
            pages = list(listed.pages())
            rest = user.usage.list_usage_records(page_token=pages[0].next_page_token, page_size=10)
            return (
                [record.input_tokens for record in listed],
                [len(page.records) for page in pages],
                [record.input_tokens for record in rest],
            )

    everything, sizes, rest = await asyncio.to_thread(in_a_thread)
    assert sizes == [10, 10, 5]
    assert sorted(everything) == list(range(1, RECORDS + 1))
    assert rest == everything[10:]
    async with router.client("user", spender) as user:
        listed = user.usage.list_usage_records(page_size=10)
        assert [record.input_tokens async for record in listed] == everything
        assert [len(page.records) async for page in listed.pages()] == sizes
        buckets = [bucket async for bucket in user.usage.list_usage_buckets(granularity="hour")]
        assert sum(bucket.requests for bucket in buckets) == RECORDS


async def test_a_page_is_asked_for_when_it_is_needed(router: OwnServer, spender: uuid.UUID) -> None:
    async with router.client("user", spender) as user:
        user.usage.list_usage_records(page_size=1000)  # nobody iterates, so nobody is told
        with pytest.raises(InvalidField) as caught:
            [record async for record in user.usage.list_usage_records(page_size=1000)]
        assert [wrong.field for wrong in caught.value.fields] == ["page_size"]
        first = await anext(aiter(user.usage.list_usage_records(page_size=1)))
        assert first.request_id


async def test_an_export_is_a_stream_of_bytes(router: OwnServer, spender: uuid.UUID) -> None:
    def in_a_thread() -> bytes:
        with Client(router.address, token=router.identity.mint("user", spender)) as user:
            return b"".join(user.usage.export_usage())

    async with router.client("user", spender) as user:
        content = b"".join([part async for part in user.usage.export_usage()])
        async with contextlib.aclosing(user.usage.export_usage()) as left:
            assert content.startswith(await anext(left))
    rows = list(csv.DictReader(io.StringIO(content.decode())))
    assert sorted(int(row["input_tokens"]) for row in rows) == list(range(1, RECORDS + 1))
    assert await asyncio.to_thread(in_a_thread) == content


async def test_a_change_leaves_what_it_does_not_name(router: OwnServer) -> None:
    async with router.client("user", uuid.uuid4()) as user:
        await user.settings.update_settings(monthly_budget_usd=12.5, preferred_power_level=PRECISION)
        await user.settings.update_settings(
            routing_config=RoutingConfig(cost_weight=0.6, latency_weight=0.2, quality_weight=0.2)
        )
        settings = await user.settings.get_settings()
        assert (settings.monthly_budget_usd, settings.preferred_power_level) == (12.5, PRECISION)
        assert settings.routing_config.cost_weight == 0.6
        cleared = await user.settings.update_settings(clear_monthly_budget=True)
        assert not cleared.HasField("monthly_budget_usd")


async def test_a_key_is_stored_annotated_and_erased(client_world: ClientWorld, router: OwnServer) -> None:
    async with router.client("user", uuid.UUID(client_world.user_id)) as user:
        first = await anext(aiter(user.byok.list_keys()))
        changed = await user.byok.update_key(first.key_id, metadata={"team": "search", "seats": 3})
        assert dict(changed.metadata) == {"team": "search", "seats": 3}
        assert changed.is_active
        gone: None = await user.byok.delete_key(first.key_id)
        assert gone is None
        with pytest.raises(RateLimited) as limited:
            await user.byok.update_key(first.key_id, is_active=False)
    assert 0 < (limited.value.retry_after or 0) <= 60
    async with router.client("user", uuid.uuid4()) as stranger:
        with pytest.raises(NotFound) as caught:
            await stranger.byok.delete_key(first.key_id)
    assert caught.value.metadata == {"resource": "key"}


async def test_an_etag_keeps_two_admins_apart(client_world: ClientWorld, router: OwnServer) -> None:
    async with router.client("admin") as admin:
        wanted = client_world.providers["A"].url
        [provider] = [each async for each in admin.providers.list_providers() if each.api_endpoint == wanted]
        await admin.providers.update_provider(provider.provider_id, priority=60, etag=provider.etag)
        with pytest.raises(EtagMismatch):
            await admin.providers.update_provider(provider.provider_id, priority=70, etag=provider.etag)
        assert (await admin.providers.get_provider(provider.provider_id)).priority == 60


async def test_a_role_that_is_missing_is_said_so(router: OwnServer) -> None:
    async with router.client("user") as user:
        with pytest.raises(RoleRequired) as caught:
            await user.providers.create_provider(name="x", provider_type="openai", api_endpoint="https://x.test/v1")
    assert caught.value.reason == "ROLE_REQUIRED"
    assert caught.value.request_id in str(caught.value)


async def test_a_request_that_is_too_large_is_no_rate_limit(router: OwnServer) -> None:
    record = RecordUsageRequest(user_id=str(uuid.uuid4()), error_message="x" * 2000)
    async with router.client("service") as service:
        with pytest.raises(RequestTooLarge):
            await service.usage.batch_record_usage([record] * 1000)


async def test_a_refused_token_is_fetched_anew_and_the_call_repeated(router: OwnServer) -> None:
    fetched: list[str] = []

    def fetch() -> str:
        fetched.append(router.identity.mint("user") if fetched else "stale")
        return fetched[-1]

    async def fetch_async() -> str:
        return fetch()

    async with AsyncClient(router.address, token=AsyncRefreshingToken(fetch_async)) as client:
        assert (await client.settings.get_settings()).preferred_power_level
        await client.settings.get_settings()
    assert len(fetched) == 2

    def in_threads() -> None:
        with Client(router.address, token=RefreshingToken(fetch)) as waiting:
            assert list(waiting.models.list_models(power_level=ECO))
            assert b"".join(waiting.usage.export_usage())

    fetched.clear()
    await asyncio.to_thread(in_threads)
    assert len(fetched) == 2


async def test_a_token_that_stays_refused_is_told_after_two_tries(router: OwnServer) -> None:
    asked: list[str] = []

    def token() -> str:
        asked.append(f"wrong-{len(asked)}")
        return asked[-1]

    async with AsyncClient(router.address, token=token) as client:
        with pytest.raises(Unauthenticated):
            await client.settings.get_settings()
    assert asked == ["wrong-0", "wrong-1"]
