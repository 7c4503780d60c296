"""`llmrouter up`: the local stack in the foreground, with all that one needs to try it."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from pathlib import Path

import click

from llmrouter_server.runtime.dev_identity import ROLES
from llmrouter_server.runtime.local_stack import LocalStack, LocalStackError, Ports


def run(home: Path, ports: Ports) -> int:
    """Run until Ctrl-C or SIGTERM and return the exit code: 0 after a clean stop, 1 when something failed."""
    return asyncio.run(_run(home, ports))


async def _run(home: Path, ports: Ports) -> int:
    started = time.perf_counter()
    stack = LocalStack(home, ports=ports, say=click.echo)
    stopping = asyncio.Event()

    def stop() -> None:
        if stopping.is_set():
            stack.hurry()
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Started in the background of a script, SIGINT is ignored; it is the way to stop this all the same.
        if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(number, stop)
    stop_asked = asyncio.create_task(stopping.wait())
    try:
        starting = asyncio.create_task(stack.start())
        if not await _before(stop_asked, starting):
            return 0
        click.echo(_introduction(stack))
        click.echo(f"everything is up after {time.perf_counter() - started:.1f} s; Ctrl-C stops it\nready")
        failing = asyncio.create_task(stack.first_failure())
        if await _before(stop_asked, failing):
            click.echo(f"llmrouter: {failing.result()}", err=True)
            return 1
    except LocalStackError as error:
        click.echo(f"llmrouter: {error}", err=True)
        return 1
    else:
        return 0
    finally:
        if stack.pids:
            click.echo("stopping ...")
        await stack.stop()
        stop_asked.cancel()


async def _before(stop_asked: asyncio.Task[bool], work: asyncio.Task[None] | asyncio.Task[str]) -> bool:
    """Wait for either; return whether the work ended, else it is cancelled. What it raised is raised."""
    await asyncio.wait({stop_asked, work}, return_when=asyncio.FIRST_COMPLETED)
    if not work.done():
        work.cancel()
        await asyncio.wait({work})
        return False
    work.result()
    return True


def _introduction(stack: LocalStack) -> str:
    tokens = {role: stack.identity.mint(role) for role in ROLES}
    bearer = {role: f"-H 'authorization: Bearer {token}'" for role, token in tokens.items()}
    json_type = "-H 'content-type: application/json'"
    for_user = f'{{"user_id": "{stack.identity.users["user"]}", "power_level": "ECO"}}'
    grpc = f"{stack.grpc_address} llmrouter.v2"
    lines = [
        "",
        f"JSON     {stack.base_url}",
        f"OpenAI   {stack.base_url.removesuffix('/api/v2/llm')}/v1",
        f"gRPC     {stack.grpc_address}",
        f"metrics  {stack.metrics_url}",
        f"data     {stack.home}",
        "",
        *(f"{role} token: {token}" for role, token in tokens.items()),
        f"They are good for a day. More of them: {Path(sys.executable).with_name('llmrouter')} token --help",
        "",
        "As a user: which model should I use? Which are there?",
        f'curl {bearer["user"]} {json_type} -d \'{{"power_level": "ECO"}}\' {stack.base_url}/route',
        f"curl {bearer['user']} '{stack.base_url}/models?power_level=PRECISION'",
        "As an admin: the providers",
        f"curl {bearer['admin']} {stack.base_url}/providers",
        f"grpcurl -plaintext {bearer['admin']} {grpc}.ProviderService/ListProviders",
        "As a service: a decision for the user above",
        f"grpcurl -plaintext {bearer['service']} -d '{for_user}' {grpc}.RoutingService/Route",
        "",
    ]
    return "\n".join(lines)
