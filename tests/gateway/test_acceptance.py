from __future__ import annotations

import uuid

from llmrouter_server.gateway.acceptance import PATIENCE_S, SPREAD_S, Acceptance


def test_time_makes_usable_what_no_envoy_has_been_heard_about() -> None:
    now = 5.0
    acceptance = Acceptance(lambda: now)
    first, second = (uuid.uuid4(), "https://a.test"), (uuid.uuid4(), "https://b.test")
    acceptance.now_there([first])
    assert acceptance.is_usable(first)
    acceptance.now_there([first, second])
    now += PATIENCE_S - 0.01
    acceptance.now_there([first, second])
    assert not acceptance.is_usable(second)
    now += 0.01
    assert acceptance.is_usable(second)


def test_a_provider_that_comes_back_is_new() -> None:
    acceptance = Acceptance(lambda: 0.0)
    pair = (uuid.uuid4(), "https://a.test")
    acceptance.now_there([pair])
    acceptance.accept([pair])
    acceptance.now_there([])
    acceptance.accept([pair])  # of an answer that is on its way still
    acceptance.now_there([pair])
    assert not acceptance.is_usable(pair)


def test_what_an_envoy_has_said_to_have_may_be_named_a_moment_later_however_often_it_says_so() -> None:
    now = 5.0
    acceptance = Acceptance(lambda: now)
    acceptance.now_there([])
    pair = (uuid.uuid4(), "https://a.test")
    acceptance.now_there([pair])
    acceptance.accept([pair])
    assert not acceptance.is_usable(pair)
    now += SPREAD_S - 0.01
    acceptance.accept([pair])
    assert not acceptance.is_usable(pair)
    now += 0.01
    assert acceptance.is_usable(pair)
    assert SPREAD_S < PATIENCE_S


def test_one_envoy_that_refuses_takes_nothing_from_another_that_accepted() -> None:
    now = 0.0
    acceptance = Acceptance(lambda: now)
    pair = (uuid.uuid4(), "https://a.test")
    acceptance.now_there([pair])
    acceptance.refuse([pair])
    assert not acceptance.is_usable(pair)
    acceptance.accept([pair])
    acceptance.refuse([pair])
    now += SPREAD_S
    assert acceptance.is_usable(pair)
