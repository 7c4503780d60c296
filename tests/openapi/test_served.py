"""The document and its page as Envoy serves them: to everybody, from files, without anything of another host."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

import http_json
from contract import API, document
from llmrouter_server.runtime.resources import resource_dir

if TYPE_CHECKING:
    from llmrouter_server.runtime.local_stack import LocalStack

FILES = {
    "openapi.json": ("openapi.json", "application/json"),
    "docs": ("docs.html", "text/html; charset=utf-8"),
    "docs.css": ("docs.css", "text/css; charset=utf-8"),
    "docs.js": ("docs.js", "text/javascript; charset=utf-8"),
}


@pytest.mark.parametrize("name", FILES)
def test_everybody_may_read_it(stack: LocalStack, name: str) -> None:
    file, content_type = FILES[name]
    answer = http_json.call("GET", f"{stack.base_url}/{name}")
    assert answer.status == 200
    assert answer.headers["content-type"] == content_type
    expected = (resource_dir("envoy") / file).read_text()
    assert answer.json == (document() if file == "openapi.json" else expected)
    assert http_json.call("HEAD", f"{stack.base_url}/{name}").status == 200


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "docs"), ("GET", "docs/"), ("GET", "docs.html"), ("PUT", "openapi.json")]
)
def test_nothing_else_beside_it_is_open(stack: LocalStack, method: str, path: str) -> None:
    assert http_json.call(method, f"{stack.base_url}/{path}").status == 401
    token = stack.identity.mint("user")
    assert http_json.call(method, f"{stack.base_url}/{path}", token=token).status == 404


def test_the_page_brings_all_it_needs_and_may_load_nothing_else(stack: LocalStack) -> None:
    answer = http_json.call("GET", f"{stack.base_url}/docs")
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert {policy[kind] for kind in ("style-src", "script-src", "connect-src")} == {"'self'"}
    loaded = re.findall(r'(?:src|<link [^>]*href)="([^"]+)"', answer.json)
    assert sorted(loaded) == [f"{API}/docs.css", f"{API}/docs.js"]
    assert not re.search(r"<style|<script>| style=| on\w+=", answer.json)


def test_the_page_shows_every_operation_and_every_link_leads_somewhere() -> None:
    page = (resource_dir("envoy") / "docs.html").read_text()
    anchors = set(re.findall(r'id="([^"]+)"', page))
    for item in document()["paths"].values():
        for operation in item.values():
            assert operation["operationId"] in anchors
    assert set(re.findall(r'href="#([^"]+)"', page)) <= anchors
