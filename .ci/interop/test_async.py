"""The same path with AsyncStack."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from getstack import ForbiddenError, MissionEndedError, StackError, UnauthorizedError

from conftest import POST_MESSAGE, SLACK_SCOPES, SLACK_TOKEN
from judge import Judge
from stackmock import Stackmock, Upstream
from test_passports import claims


def test_async_path(async_stack: Any, mock: Stackmock, slack: Upstream, judge: Judge) -> None:
    async def run() -> None:
        async with async_stack() as stack:
            agent = await stack.agents.register("async-agent", description="a", accountability_mode="enforced")
            helper = await stack.agents.register("async-helper")
            connection = await stack.services.connect(service_id="slack", oauth_token=SLACK_TOKEN, scopes=SLACK_SCOPES)
            for one in (agent, helper):
                await stack.services.grant_agent_access(one.id, connection["id"], SLACK_SCOPES)
            assert await stack.agents.get(agent.id) == agent
            assert [item["id"] for item in await stack.services.list()] == [connection["id"]]

            operations: list[str] = []

            async def keep(operation_id: str) -> None:
                await asyncio.sleep(0)
                operations.append(operation_id)

            async with stack.passports.mission(
                agent_id=agent.id,
                intent="Answer",
                services=["slack"],
                will_delegate=True,
                expires_in="1h",
                checkpoint_interval="5m",
            ) as mission:
                answer = await mission.proxy(
                    "slack",
                    POST_MESSAGE,
                    "POST",
                    body={"channel": "#support", "text": "On it"},
                    on_operation_id=keep,
                    _proxy_service=stack.proxy,
                )
                assert answer.ok() and operations == [answer.operation_id]
                await mission._submit_checkpoint()
                operation = await stack.proxy.get_operation(
                    answer.operation_id, passport_token=mission.token, include_response=True
                )
                assert operation["response"]["status"] == 200
                child = await stack.passports.delegate(mission.token, helper.id, scopes=["slack"], ttl_seconds=120)
                assert claims(child.token)["stk"]["delegation_depth"] == 1
                mission.delegate(helper.id)
                with pytest.raises(ForbiddenError):
                    await stack.proxy.get("github", "https://api.github.com/user", passport_token=child.token)
            assert mission.review_status == "clean"
            assert (await stack.missions.get(mission.mission_id))["status"] == "completed"
            report = await stack.passports.report(mission.passport.jti)
            assert len(report.checkpoints) == 1 and report.checkout is not None
            with pytest.raises(MissionEndedError) as ended:
                await stack.passports.refresh(mission.token)
            assert ended.value.mission_state == "completed"

            events = (await stack.security_events.list(agent_id=helper.id))["events"]
            assert [event["signal_type"] for event in events] == ["credential_outside_scope"]
            await stack.security_events.resolve(events[0]["id"])
            assert (await stack.reviews.list()).items == []
            assert (await stack.usage.get())["consumption"]["actions"]["used"] >= 1
            assert (await stack.scan.scan({"subject": "Lunch?"}, context="email"))["verdict"] == "clean"
            strict = {"warning": "critical"}
            assert (await stack.detector_config.upsert("scope_drift", severity_overrides=strict))["enabled"] is True
            assert True in (await stack.audit.verify_chain()).values()
            assert (await stack.credentials.get("slack")).credential == SLACK_TOKEN

    asyncio.run(run())
    assert slack.paths() == ["POST /api/chat.postMessage"]


def test_async_failure_and_kill(async_stack: Any, mock: Stackmock, slack: Upstream, judge: Judge) -> None:
    async def run() -> None:
        async with async_stack() as stack:
            agent = await stack.agents.register("async-agent")
            connection = await stack.services.connect("slack", SLACK_TOKEN, SLACK_SCOPES)
            await stack.services.grant_agent_access(agent.id, connection["id"], SLACK_SCOPES)
            with pytest.raises(UnauthorizedError) as killed:
                async with stack.passports.mission(agent.id, "Answer", ["slack"]) as mission:
                    await stack.passports.revoke_all(reason="enough")
                    await mission.proxy("slack", POST_MESSAGE, "POST", body={}, _proxy_service=stack.proxy)
            assert killed.value.code == "PASSPORT_REVOKED"
            assert (await stack.missions.get(mission.mission_id))["status"] == "revoked"

            opened = await stack.missions.open("By hand", agent_id=agent.id, expires_in_seconds=600)
            session = await stack.issue_passport(
                agent_id=agent.id, mission_ids=[opened["mission_id"]], intent={"summary": "x", "services": ["slack"]}
            )
            mock.advance(601)
            with pytest.raises(MissionEndedError):
                await session.get_token(grace_seconds=100_000)
            with pytest.raises(StackError) as refused:
                await stack.agents.register("Not A Slug")
            assert (refused.value.status_code, refused.value.code) == (400, "INVALID_REQUEST")

    asyncio.run(run())
    assert slack.requests == []


def test_async_rotation(async_stack: Any, mock: Stackmock, judge: Judge) -> None:
    async def run() -> None:
        async with async_stack() as stack:
            agent = await stack.agents.register("async-agent")
            connection = await stack.services.connect("slack", SLACK_TOKEN, SLACK_SCOPES)
            await stack.services.grant_agent_access(agent.id, connection["id"], SLACK_SCOPES)
            since = len(judge.calls)
            runs = stack.passports.continuous_mission(agent.id, "Watch", ["slack"], rotation_interval="1h", expires_in="24h")
            first = await anext(runs)
            second = await anext(runs)
            assert second.rotation_count == 1 and second.passport.jti != first.passport.jti
            await runs.aclose()
            assert judge.wire(since) == [
                "POST /v1/missions/start",
                "POST /v1/passports/{}/checkout",
                "POST /v1/passports/issue",
                "POST /v1/passports/{}/checkout",
                "POST /v1/missions/{}/complete",
            ]

    asyncio.run(run())
