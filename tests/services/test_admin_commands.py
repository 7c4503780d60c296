"""`llmrouter providers`, `models`, `rules`, `keys` and `usage` against a running server."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from conftest import User
from hostile_provider import hostile_provider
from llmrouter import Client
from llmrouter.v2.model_service_pb2 import ListModelsRequest
from llmrouter.v2.usage_pb2 import ATTEMPT_FAILURE_TIMEOUT, USAGE_STATUS_ERROR
from llmrouter.v2.usage_service_pb2 import RecordUsageRequest
from llmrouter_server.admin.table import lines_of, money
from llmrouter_server.cli import main

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from llmrouter_server.runtime.local_stack import LocalStack

    Llmrouter = Callable[..., Result]

KEY = "sk-or-0123456789abcdef"


@pytest.fixture(scope="module")
async def own(own_stack: Callable[..., AbstractAsyncContextManager[LocalStack]]) -> AsyncIterator[LocalStack]:
    """A stack whose catalogue may be changed."""
    async with own_stack() as running:
        yield running


@pytest.fixture
def llmrouter(own: LocalStack) -> Llmrouter:
    """Run a command as it is run beside the local stack, with nothing but the addresses told."""

    def run(*arguments: str, given: str | None = None, **environment: str) -> Result:
        settings = {"LLMROUTER_SERVER": own.grpc_address, "LLMROUTER_HOME": str(own.home), "LLMROUTER_TOKEN": None}
        return CliRunner().invoke(main, list(arguments), input=given, env={**settings, **environment})

    return run


@pytest.fixture
def user(own: LocalStack) -> User:
    user_id = uuid.uuid4()
    return User(user_id, own.identity.mint("user", user_id))


def printed(result: Result) -> str:
    assert result.exit_code == 0, result.output
    assert not result.stderr
    return result.stdout


def rows(result: Result) -> list[list[str]]:
    """Return the cells of a table, which are at least two blanks apart."""
    return [[cell for cell in line.split("  ") if cell.strip()] for line in printed(result).splitlines()]


def data(result: Result) -> Any:
    return json.loads(printed(result))


def refused(result: Result, exit_code: int) -> str:
    assert result.exit_code == exit_code, result.output
    assert not result.stdout
    [line] = result.stderr.splitlines()
    assert isinstance(line, str)
    return line


def test_the_providers_are_a_table_in_the_order_of_their_priority(llmrouter: Llmrouter) -> None:
    headings, first, *others = printed(llmrouter("providers", "list")).splitlines()
    assert headings.split() == ["NAME", "TYPE", "ENABLED", "PRIORITY", "BYOK", "PLATFORM", "KEY", "MODELS", "ENDPOINT"]
    assert first.split() == ["Local", "vLLM", "local", "yes", "100", "no", "no", "1", "http://localhost:8000/v1"]
    assert len(others) == 6
    at = headings.index("ENDPOINT")
    assert {line[at - 1 :][:5] for line in (first, *others)} == {" http"}


def test_lists_and_things_are_json_for_machines(llmrouter: Llmrouter) -> None:
    listed = data(llmrouter("providers", "list", "--json"))
    assert [each["name"] for each in listed][:2] == ["Local vLLM", "Groq"]
    assert data(llmrouter("providers", "show", "groq", "--json")) == listed[1]
    assert data(llmrouter("providers", "show", listed[1]["provider_id"], "--json")) == listed[1]


def test_a_provider_is_created_changed_and_disabled(llmrouter: Llmrouter) -> None:
    endpoint = "https://llm.example.com/v1"
    made = data(llmrouter("providers", "create", "Made", "--type", "openai", "--endpoint", endpoint, "--json"))
    assert (made["is_enabled"], made["requires_byok"], made["priority"]) == (True, True, 50)
    changed = data(llmrouter("providers", "update", "made", "--priority", "7", "--no-byok", "--json"))
    assert (changed["priority"], changed["requires_byok"], changed["api_endpoint"]) == (7, False, endpoint)
    assert data(llmrouter("providers", "update", "Made", "--name", "Remade", "--json"))["name"] == "Remade"
    assert data(llmrouter("providers", "disable", "Remade", "--json"))["is_enabled"] is False
    assert "Remade" not in printed(llmrouter("providers", "list", "--enabled"))
    assert data(llmrouter("providers", "enable", "Remade", "--json"))["is_enabled"] is True
    twice = llmrouter("providers", "create", "Remade", "--type", "openai", "--endpoint", endpoint)
    assert "ALREADY_EXISTS" in refused(twice, 1)


def test_a_platform_key_comes_from_standard_input_and_never_goes_out(llmrouter: Llmrouter) -> None:
    stored = llmrouter("providers", "set-key", "OpenRouter", "--json", given=f"{KEY}\n")
    assert data(stored)["has_platform_key"] is True
    assert KEY not in stored.output
    asked = llmrouter("providers", "remove-key", "OpenRouter", given="n\n")
    assert asked.exit_code == 1
    assert data(llmrouter("providers", "remove-key", "OpenRouter", "--yes", "--json"))["has_platform_key"] is False
    assert refused(llmrouter("providers", "set-key", "OpenRouter", given=""), 2).endswith(
        "no platform key on standard input"
    )


def test_no_option_takes_a_secret() -> None:
    def options(command: Any) -> set[str]:
        inner = getattr(command, "list_commands", lambda _: [])
        nested = [options(command.get_command(None, name)) for name in inner(None)]
        return {name for parameter in command.params for name in parameter.opts}.union(*nested)

    found = options(main)
    assert "--token-file" in found
    assert not found & {"--token", "--key", "--api-key", "--password", "--secret"}


def test_health_says_unknown_of_providers_that_nobody_has_tried(llmrouter: Llmrouter) -> None:
    found = rows(llmrouter("providers", "health"))
    assert [cell.strip() for cell in next(row for row in found if row[0] == "Groq")][:2] == ["Groq", "UNKNOWN"]


def test_models_are_listed_by_level_and_provider(llmrouter: Llmrouter) -> None:
    lines = printed(llmrouter("models", "list", "--level", "eco", "--provider", "groq")).splitlines()
    assert lines[0].split() == [
        "MODEL",
        "PROVIDER",
        "LEVEL",
        "$/1M",
        "IN",
        "$/1M",
        "OUT",
        "LATENCY",
        "MS",
        "QUALITY",
        "CONTEXT",
        "BYOK",
        "ENABLED",
    ]
    assert [line.split()[0] for line in lines[1:]] == ["llama-3.1-70b-versatile", "mixtral-8x7b-32768"]
    assert lines[1].split()[1:] == ["Groq", "ECO", "0.00", "0.00", "300", "8.50", "131,072", "yes", "yes"]


def test_a_model_is_created_changed_and_disabled(llmrouter: Llmrouter) -> None:
    options = ("--level", "balanced", "--input-cost", "0.25", "--capability", "chat", "--capability", "code", "--json")
    made = data(llmrouter("models", "create", "Anthropic", "made-1", *options))
    assert (made["input_cost_per_1m"], made["provider_name"]) == (0.25, "Anthropic")
    assert made["capabilities"] == ["chat", "code", "streaming"]
    changed = data(llmrouter("models", "update", "made-1", "--quality", "9.25", "--level", "PRECISION", "--json"))
    assert (changed["quality_score"], changed["power_level"], changed["input_cost_per_1m"]) == (9.25, "PRECISION", 0.25)
    assert data(llmrouter("models", "disable", "made-1", "--json"))["is_enabled"] is False
    assert "made-1" not in printed(llmrouter("models", "list"))
    assert "made-1" in printed(llmrouter("models", "list", "--all"))
    assert data(llmrouter("models", "enable", "made-1", "--json"))["is_enabled"] is True


def test_a_name_that_several_providers_have_needs_the_provider(llmrouter: Llmrouter) -> None:
    for provider in ("Groq", "OpenAI"):
        printed(llmrouter("models", "create", provider, "twin", "--level", "eco", "--disabled"))
    assert refused(llmrouter("models", "show", "twin"), 1) == ("llmrouter: Groq, OpenAI have 'twin': give --provider")
    assert data(llmrouter("models", "show", "twin", "--provider", "groq", "--json"))["provider_name"] == "Groq"
    assert "there is no model 'nobody'" in refused(llmrouter("models", "show", "nobody"), 1)


def test_rules_are_a_table_in_the_order_in_which_they_are_tried(llmrouter: Llmrouter) -> None:
    night = 'task_type == "batch" && now.getHours() < 6'
    providers = ("--provider", "groq", "--provider", "Anthropic")
    printed(llmrouter("rules", "create", "Night", "--condition", night, "--level", "eco", *providers))
    printed(llmrouter("rules", "create", "Cheap", "--priority", "70", "--weights", "0.6,0.2,0.2", "--inactive"))
    printed(llmrouter("rules", "create", "Good", "--strategy", "quality_optimized"))
    lines = [
        "RULE   PRIORITY  ACTIVE  LEVEL  WEIGHTS            PROVIDERS        CONDITION",
        "Cheap        70  no             0.6,0.2,0.2",
        "Good         50  yes            quality_optimized",
        f"Night        50  yes     ECO                       Groq, Anthropic  {night}",
    ]
    assert printed(llmrouter("rules", "list")).splitlines() == lines
    listed = data(llmrouter("rules", "list", "--json"))
    assert [each["rule_name"] for each in listed] == ["Cheap", "Good", "Night"]
    assert [each["rule_name"] for each in data(llmrouter("rules", "list", "--active", "--json"))] == ["Good", "Night"]
    assert data(llmrouter("rules", "show", "night", "--json")) == listed[2]
    assert data(llmrouter("rules", "show", listed[2]["rule_id"], "--json")) == listed[2]
    for name in ("Cheap", "Good", "Night"):
        printed(llmrouter("rules", "delete", name, "--yes"))
    assert data(llmrouter("rules", "list", "--json")) == []


def test_a_rule_is_created_changed_deactivated_and_erased(llmrouter: Llmrouter) -> None:
    made = data(llmrouter("rules", "create", "Made", "--level", "eco", "--provider", "Groq", "--json"))
    assert (made["priority"], made["is_active"], made["condition"]) == (50, True, "")
    groq = data(llmrouter("providers", "show", "Groq", "--json"))["provider_id"]
    assert (made["power_level"], made["provider_ids"]) == ("ECO", [groq])
    changed = data(
        llmrouter("rules", "update", "made", "--condition", "input_tokens > 1000", "--clear-level", "--json")
    )
    assert (changed["condition"], "power_level" in changed) == ("input_tokens > 1000", False)
    options = ("--condition", "", "--weights", "1,0,0", "--clear-providers", "--name", "Remade")
    changed = data(llmrouter("rules", "update", "Made", *options, "--json"))
    assert (changed["condition"], changed["provider_ids"], changed["weights"]["cost"]) == ("", [], 1)
    changed = data(llmrouter("rules", "update", "Remade", "--level", "precision", "--clear-weights", "--json"))
    assert (changed["power_level"], "weights" in changed) == ("PRECISION", False)
    assert data(llmrouter("rules", "deactivate", "Remade", "--json"))["is_active"] is False
    assert data(llmrouter("rules", "activate", "Remade", "--json"))["is_active"] is True
    assert llmrouter("rules", "delete", "Remade", given="n\n").exit_code == 1
    erased = llmrouter("rules", "delete", "Remade", "--yes", "--json")
    assert data(erased)["rule_id"] == made["rule_id"]
    assert "there is no rule 'Remade'; there are: none" in refused(llmrouter("rules", "show", "Remade"), 1)


def test_a_rule_that_is_none_is_refused_with_what_is_wrong(llmrouter: Llmrouter, user: User) -> None:
    typo = refused(llmrouter("rules", "create", "Typo", "--condition", "task_typ == 'batch'", "--level", "eco"), 1)
    assert "condition" in typo
    assert "at character 1, undeclared reference to 'task_typ'" in typo
    assert "INVALID_FIELD" in refused(llmrouter("rules", "create", "Idle"), 1)
    assert "there is no provider 'Grok'" in refused(llmrouter("rules", "create", "Far", "--provider", "Grok"), 1)
    assert llmrouter("rules", "create", "Heavy", "--weights", "1,1,1").exit_code == 2
    assert "ROLE_REQUIRED" in refused(llmrouter("rules", "list", LLMROUTER_TOKEN=user.token), 4)


async def test_ones_own_keys_are_stored_tried_rested_and_erased(llmrouter: Llmrouter) -> None:
    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter, _request: str) -> None:
        writer.write(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n")

    async with hostile_provider(refuse) as provider:
        printed(llmrouter("providers", "create", "Stern", "--type", "openai", "--endpoint", provider.url))
        stored = llmrouter("keys", "store", "stern", "--json", given=KEY)
        assert data(stored)["key_prefix"] == "sk-or-"
        assert KEY not in stored.output
        verified = await asyncio.to_thread(llmrouter, "keys", "verify", "Stern", "--json")
        assert verified.exit_code == 1
        assert json.loads(verified.stdout)["verdict"] == "KEY_VERDICT_REFUSED"
    headings, line = printed(llmrouter("keys", "list")).splitlines()
    assert headings.split() == ["PROVIDER", "KEY", "ACTIVE", "REFUSED", "CHANGED", "ID"]
    key_id = line.split()[-1]
    assert line.split()[:3] == ["Stern", "sk-or-…", "yes"]
    assert data(llmrouter("keys", "deactivate", key_id, "--json"))["is_active"] is False
    assert data(llmrouter("keys", "activate", "STERN", "--json"))["is_active"] is True
    assert printed(llmrouter("keys", "delete", "Stern", "--yes")) == ""
    assert data(llmrouter("keys", "list", "--json")) == []
    assert "there is no key of yours for 'Stern'; there are: none" in refused(llmrouter("keys", "verify", "Stern"), 1)


@pytest.fixture
def used(own: LocalStack, user: User) -> User:
    """A user with 70 attempts at gpt-4o, two of them failed."""
    with Client(own.grpc_address, token=own.identity.mint("service")) as client:
        models = client.models.ListModels(ListModelsRequest()).models
        [model] = [each.model_id for each in models if each.model_name == "gpt-4o"]
        for number in range(70):
            failed = {"status": USAGE_STATUS_ERROR, "failure": ATTEMPT_FAILURE_TIMEOUT} if number < 2 else {}
            request = RecordUsageRequest(
                user_id=str(user.id),
                request_id=str(number),
                model_id=model,
                input_tokens=0 if failed else 1000,
                output_tokens=0 if failed else 100,
                latency_ms=400,
                **failed,
            )
            client.usage.RecordUsage(request)
    return user


def test_usage_is_summed_listed_and_exported(llmrouter: Llmrouter, used: User) -> None:
    me = {"LLMROUTER_TOKEN": used.token}
    lines = printed(llmrouter("usage", "summary", "--days", "2", **me)).splitlines()
    assert lines[1].split() == ["REQUESTS", "FAILED", "INPUT", "OUTPUT", "US", "$"]
    assert lines[2].split() == ["OpenAI", "68", "2", "68,000", "6,800", "0.238"]
    assert lines[-1].split() == ["total", "68", "2", "68,000", "6,800", "0.238"]
    assert data(llmrouter("usage", "summary", "--json", **me))["total_requests"] == 68
    series = data(llmrouter("usage", "series", "--by", "hour", "--json", **me))
    assert sum(bucket["requests"] for bucket in series) == 68
    assert len(printed(llmrouter("usage", "series", **me)).splitlines()) == 31
    assert len(printed(llmrouter("usage", "records", **me)).splitlines()) == 51
    assert len(data(llmrouter("usage", "records", "--limit", "600", "--json", **me))) == 70
    failed = printed(llmrouter("usage", "records", "--errors", **me)).splitlines()[1:]
    assert {line.split()[-1] for line in failed} == {"timeout"}
    assert len(list(csv.DictReader(io.StringIO(printed(llmrouter("usage", "export", **me)))))) == 70


def test_a_service_names_the_user(llmrouter: Llmrouter, own: LocalStack, used: User) -> None:
    service = {"LLMROUTER_TOKEN": own.identity.mint("service")}
    assert data(llmrouter("usage", "summary", "--user", str(used.id), "--json", **service))["total_requests"] == 68
    assert "INVALID_FIELD" in refused(llmrouter("usage", "summary", **service), 1)


def test_the_exit_code_tells_what_is_wrong(llmrouter: Llmrouter, user: User, tmp_path: Path) -> None:
    assert "ROLE_REQUIRED" in refused(llmrouter("providers", "list", LLMROUTER_TOKEN=user.token), 4)
    bad = tmp_path / "token"
    bad.write_text("no.such.token\n")
    assert "UNAUTHENTICATED" in refused(llmrouter("providers", "list", "--token-file", str(bad)), 4)
    away = refused(llmrouter("providers", "list", "--server", "127.0.0.1:1"), 3)
    assert away.startswith("llmrouter: no llmrouter answers at 127.0.0.1:1: run llmrouter up here, or name a server")
    known = refused(llmrouter("providers", "show", "Grok"), 1)
    assert known.startswith("llmrouter: there is no provider 'Grok'; there are: Anthropic, Groq, ")
    assert "RESOURCE_NOT_FOUND" in refused(llmrouter("providers", "show", str(uuid.uuid4())), 1)
    assert llmrouter("usage", "series", "--from", "yesterday").exit_code == 2


def test_a_development_token_goes_nowhere_but_to_this_machine(llmrouter: Llmrouter) -> None:
    elsewhere = refused(llmrouter("providers", "list", "--server", "router.example.com:443"), 2)
    assert elsewhere == ("llmrouter: no token for router.example.com:443: set LLMROUTER_TOKEN, or give --token-file")


def test_without_token_and_stack_it_says_what_to_do(llmrouter: Llmrouter, tmp_path: Path) -> None:
    said = refused(llmrouter("keys", "list", "--home", str(tmp_path)), 2)
    assert "no token: set LLMROUTER_TOKEN, or give --token-file" in said
    assert "run make up first" in said


def test_another_machine_is_reached_in_plain_text_only_when_told_so(llmrouter: Llmrouter, own: LocalStack) -> None:
    """0.0.0.0 leads to this machine, but is no loopback address."""
    token = {"LLMROUTER_TOKEN": own.identity.mint("admin")}
    elsewhere = ("providers", "list", "--server", f"0.0.0.0:{own.ports.grpc}")
    refused(llmrouter(*elsewhere, **token), 3)
    assert "Groq" in printed(llmrouter(*elsewhere, "--insecure", **token))


def test_a_table_keeps_its_shape_whatever_is_in_it() -> None:
    lines = list(lines_of([["NAME", "N"], ["模型", "1"], ["a\x1b[31m\nb", "1,000"]], [False, True]))
    assert lines == ["NAME              N", "模型              1", r"a\x1b[31m\nb  1,000"]


@pytest.mark.parametrize(("dollars", "written"), [(0, "0.00"), (1234.5, "1,234.50"), (0.0000126, "0.000013")])
def test_money_is_written_to_the_millionth_where_needed(dollars: float, written: str) -> None:
    assert money(dollars) == written


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("provi", ["providers"]),
        ("providers s", ["set-key", "show"]),
        ("keys v", ["verify"]),
        ("rules de", ["deactivate", "delete"]),
        ("rules create n --strategy c", ["cost_optimized"]),
        ("models list --level ", ["eco", "balanced", "precision"]),
        ("usage series --by ", ["day", "hour"]),
        ("usage records --err", ["--errors"]),
    ],
)
def test_bash_completes_what_is_typed(typed: str, offered: list[str]) -> None:
    """The line of docs/admin.md, then what Tab does."""
    words = ["llmrouter", *typed.split(" ")]
    script = (
        'eval "$(_LLMROUTER_COMPLETE=bash_source llmrouter)"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
        '_llmrouter_completion llmrouter; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", script, "bash", *words], env=environment, capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.split() == offered


@pytest.mark.parametrize(("shell", "at"), [("zsh", "2"), ("fish", "s")])
def test_other_shells_are_told_the_same(shell: str, at: str) -> None:
    program = Path(sys.executable).parent / "llmrouter"
    for kind, wanted in (("source", "llmrouter"), ("complete", "set-key")):
        asked = {"_LLMROUTER_COMPLETE": f"{shell}_{kind}", "COMP_WORDS": "llmrouter providers s", "COMP_CWORD": at}
        done = subprocess.run([program], env=asked, capture_output=True, text=True, timeout=30, check=True)
        assert wanted in done.stdout
