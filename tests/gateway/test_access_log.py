"""What Envoy's access log tells of a request is read alike, whoever made its plan."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gateway_samples import plan, row
from llmrouter_server.gateway.access_log import AT_ONCE, AccessLog
from llmrouter_server.gateway.envoy_api import StreamAccessLogsMessage
from llmrouter_server.gateway.plan import PlansUnderWay
from turns import in_one_go

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest

    from llmrouter_server.gateway.ended import Ended
    from llmrouter_server.gateway.plan import Plan


class Reported(list["Ended"]):
    """Takes what is told."""

    def add(self, ended: Ended) -> None:
        self.append(ended)


def message(of: Plan) -> Any:
    """Envoy's message of a stream that went well."""
    values = row(of)
    sent = StreamAccessLogsMessage()
    entry = sent.http_logs.log_entry.add()
    for name in ("plan", "attempts", "usage", "stream"):
        entry.common_properties.metadata.filter_metadata[f"llmrouter.{name}"].update(values[name])
    entry.common_properties.duration.FromMilliseconds(values["duration_ms"])
    entry.response.response_code.value = values["status"]
    entry.response.response_body_bytes = values["bytes"]
    return sent


async def told(plans: PlansUnderWay, *messages: Any) -> list[Ended]:
    async def come() -> AsyncIterator[Any]:
        for each in messages:
            yield each

    reported = Reported()
    await AccessLog(reported, plans)._take(come(), None)  # type: ignore[arg-type]
    return reported


async def test_a_report_is_the_same_whether_the_plan_is_remembered_or_comes_with_it() -> None:
    ours, plans = plan(), PlansUnderWay()
    plans.add(ours)
    remembered, read = await told(plans, message(ours), message(ours))
    assert remembered == read
    assert remembered.plan is ours
    assert read.plan is not ours


async def test_a_remembered_plan_goes_with_its_own_report_alone() -> None:
    first, other, plans = plan(), plan(), PlansUnderWay()
    plans.add(first)
    plans.add(other)
    (reported,) = await told(plans, message(other))
    assert reported.plan is other
    assert plans.take(str(first.decision_id)) is first


async def test_the_report_of_a_plan_that_was_forgotten_is_read() -> None:
    first, plans = plan(), PlansUnderWay(most=1)
    plans.add(first)
    plans.add(replace(first, decision_id=plan().decision_id))
    assert plans.take(str(first.decision_id)) is None
    (reported,) = await told(plans, message(first))
    assert reported.plan == first


async def test_what_has_no_plan_is_not_reported() -> None:
    nothing = message(plan())
    del nothing.http_logs.log_entry[0].common_properties.metadata.filter_metadata["llmrouter.plan"]
    assert await told(PlansUnderWay(), nothing) == []


async def test_a_message_of_many_requests_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    plans = [plan() for _ in range(35)]
    many = message(plans[0])
    for each in plans[1:]:
        many.MergeFrom(message(each))
    async with in_one_go() as read:
        monkeypatch.setattr(AccessLog, "_ended", read.counted(AccessLog._ended))
        reported = await told(PlansUnderWay(), many)
    assert (read.most, read.all) == (AT_ONCE, 35)
    assert [each.plan for each in reported] == plans
