"""Missions: the service, the SDK's Mission and continuous Mission, and how a Mission's end looks from its passports."""

from __future__ import annotations

from typing import Any

import pytest
from getstack import ForbiddenError, MissionEndedError, NotFoundError, StackError, UnauthorizedError

from conftest import POST_MESSAGE, World
from cose import read_claim
from test_passports import claims, when


def test_open_every_field(world: World) -> None:
    agent = world.agent()
    opened = world.stack.missions.open(
        intent_summary="Triage the inbox",
        intent_services=["slack"],
        expected_counterparties=["#support"],
        baseline_profile={"kind": "steady"},
        expected_output_shape={"type": "object"},
        max_actions=10,
        max_dropoff_bytes=1000,
        coverage_cap_cents=100,
        max_duration_seconds=600,
        max_concurrent_intents=1,
        max_actions_per_service={"slack": 5},
        cap_behavior={"max_actions": "warn"},
        expires_in_seconds=1200,
        parent_passport_services=["slack"],
        agent_id=agent.id,
    )
    assert opened["mission_id"].startswith("ms_")
    assert opened["claim_id"].startswith("pc_")
    assert when(opened["expires_at"])
    got = world.stack.missions.get(opened["mission_id"])
    assert (got["status"], got["intent_summary"], got["agent_id"]) == ("live", "Triage the inbox", agent.id)


@pytest.mark.parametrize(
    "fields",
    [
        {"fleet_policy_id": "flp_unknown"},
        {
            "fleet_policy_id": "flp_unknown",
            "idempotency_key": "once",
            "requested_access": [],
            "requested_operations": [],
            "limits": {},
        },
        {"authority_binding_ids": ["unknown"]},
    ],
    ids=["policy", "policy and its fields", "binding"],
)
def test_open_unknown_references(world: World, fields: dict[str, Any]) -> None:
    with pytest.raises(StackError) as refused:
        world.stack.missions.open("Interop", **fields)
    assert refused.value.status_code in (400, 403, 404)


@pytest.mark.parametrize(
    "fields",
    [
        {"intent_summary": ""},
        {"expires_in_seconds": 86401},
        {"expires_in_seconds": -1},
        {"max_actions": -1},
        {"cap_behavior": {"max_actions": "shrug"}},
    ],
    ids=lambda fields: ",".join(f"{name}={value}" for name, value in fields.items()),
)
def test_open_refuses(world: World, fields: dict[str, Any]) -> None:
    with pytest.raises(StackError) as refused:
        world.stack.missions.open(**{"intent_summary": "x", **fields})
    assert (refused.value.status_code, refused.value.code) == (400, "INVALID_REQUEST")


def test_default_lifetime(world: World) -> None:
    now = when(world.mock.advance(1))
    opened = world.stack.missions.open("Interop")
    assert 895 <= (when(opened["expires_at"]) - now).total_seconds() <= 905


def test_start(world: World) -> None:
    agent = world.agent()
    started = world.stack.missions.start(
        agent_id=agent.id,
        mission={"intent_summary": "x", "intent_services": ["slack"], "expires_in_seconds": 1800},
        passport={"ttl_seconds": 900, "intent": {"summary": "x", "services": ["slack"]}, "checkpoint_interval_seconds": 600},
    )
    assert claims(started["passport"]["token"])["stk"]["mission_ids"] == [started["mission_id"]]
    assert world.post(started["passport"]["token"]).status == 200


def test_start_that_fails_leaves_nothing_open(world: World) -> None:
    agent = world.agent()
    with pytest.raises(StackError) as refused:
        world.stack.missions.start(agent_id=agent.id, mission={"intent_summary": "x"}, passport={"ttl_seconds": 1})
    assert refused.value.status_code == 400
    assert world.stack.missions.list(status="live")["items"] == []


def test_start_of_an_unknown_fleet(world: World) -> None:
    with pytest.raises(StackError) as refused:
        world.stack.missions.start({"fleet_policy_id": "flp_unknown", "idempotency_key": "once"})
    assert refused.value.status_code in (400, 403, 404)


def test_list(world: World) -> None:
    missions = world.stack.missions
    ids = [missions.open(f"Interop {n}")["mission_id"] for n in range(3)]
    missions.complete(ids[0])
    assert {item["mission_id"] for item in missions.list()["items"]} == set(ids)
    assert {item["mission_id"] for item in missions.list(status="live")["items"]} == set(ids[1:])
    assert [item["mission_id"] for item in missions.list(status="completed")["items"]] == ids[:1]
    pages = [missions.list(status="live", page=page, limit=1)["items"] for page in (1, 2, 3)]
    assert [len(page) for page in pages] == [1, 1, 0]
    assert pages[0] != pages[1]


def test_complete_is_idempotent(world: World) -> None:
    mission = world.stack.missions.open("Interop")["mission_id"]
    first = world.stack.missions.complete(mission, output={"tickets": 3})
    assert (first["mission_id"], first["terminal_state"], first["transitioned"]) == (mission, "completed_successful", True)
    again = world.stack.missions.complete(mission)
    assert (again["terminal_state"], again["transitioned"]) == ("completed_successful", False)
    assert (again["completed_at"], again["claim_id"]) == (first["completed_at"], first["claim_id"])


@pytest.mark.parametrize("reason", ["adversarial", "operator_initiated_clean"])
def test_revoke(world: World, reason: str) -> None:
    mission = world.stack.missions.open("Interop")["mission_id"]
    assert isinstance(world.stack.missions.revoke(mission, reason=reason, notes="enough"), dict)
    assert world.stack.missions.get(mission)["status"] == "revoked"
    with pytest.raises(StackError) as refused:
        world.stack.missions.renew(mission)
    assert refused.value.status_code in (400, 403, 409)
    with pytest.raises(StackError) as unknown:
        world.stack.missions.revoke(mission, reason="because")
    assert (unknown.value.status_code, unknown.value.code) == (400, "INVALID_REQUEST")


def test_renew(world: World) -> None:
    agent = world.agent("logged")
    started = world.stack.missions.start(
        agent_id=agent.id,
        mission={"intent_summary": "x", "intent_services": ["slack"], "expires_in_seconds": 3600},
        passport={"intent": {"summary": "x", "services": ["slack"]}},
    )
    world.mock.advance(600)
    renewed = world.stack.missions.renew(started["mission_id"])
    assert renewed["mission_id"] == started["mission_id"]
    assert renewed["passport"]["token"] != started["passport"]["token"]
    assert world.post(renewed["passport"]["token"]).status == 200
    stk = claims(renewed["passport"]["token"])["stk"]
    assert (stk["agent_id"], stk["mission_ids"]) == (agent.id, [started["mission_id"]])
    assert when(world.stack.missions.get(started["mission_id"])["expires_at"]) == when(started["expires_at"])


def test_activity(world: World) -> None:
    agent = world.agent("logged")
    started = world.stack.missions.start(
        agent_id=agent.id, mission={"intent_summary": "x"}, passport={"intent": {"summary": "x", "services": ["slack"]}}
    )
    world.post(started["passport"]["token"])
    activity = world.stack.missions.activity(started["mission_id"])
    assert "credential.proxy" in str(activity) and "passport.issue" in str(activity)
    assert world.stack.missions.replay(started["mission_id"]) == activity


def test_operator_reviews(world: World) -> None:
    mission = world.stack.missions.open("Interop")["mission_id"]
    assert world.stack.missions.list_operator_reviews(mission)["items"] == []
    with pytest.raises(NotFoundError):
        world.stack.missions.download_operator_review(mission, "pc_unknown")
    world.stack.missions.complete(mission)
    (review,) = world.stack.missions.list_operator_reviews(mission)["items"]
    assert review["claim"]["type"] == "operator_review"
    assert (review["claim"]["mission_id"], review["claim"]["terminal_state"]) == (mission, "completed_successful")
    assert review["operator_id"] == world.mock.operator_id
    assert type(review["issued_at_ms"]) is int
    signed = world.stack.missions.download_operator_review(mission, review["claim_id"])
    assert read_claim(signed, world.mock.url) == review["claim"]
    assert world.stack.missions.list_dossiers(mission) == {"items": []}


@pytest.mark.parametrize("method", ["get", "complete", "renew", "activity", "list_operator_reviews"])
def test_unknown_mission(world: World, method: str) -> None:
    with pytest.raises(NotFoundError):
        getattr(world.stack.missions, method)("ms_unknown")


# The end of a Mission, seen from its passports.


def ended(world: World, how: str) -> tuple[Any, str, Any]:
    agent = world.agent("logged")
    mission = world.stack.missions.open("Interop", expires_in_seconds=600)["mission_id"]
    passport = world.stack.passports.issue(agent.id, intent="x", services=["slack"], mission_ids=[mission])
    if how == "completed":
        world.stack.missions.complete(mission)
    elif how == "revoked":
        world.stack.missions.revoke(mission, reason="adversarial")
    else:
        world.mock.advance(601)
    return agent, mission, passport


@pytest.mark.parametrize("how", ["completed", "revoked", "expired"])
def test_mission_ended(world: World, how: str) -> None:
    agent, mission, passport = ended(world, how)
    with pytest.raises(MissionEndedError) as at_issue:
        world.stack.passports.issue(agent.id, intent="x", services=["slack"], mission_ids=[mission])
    assert (at_issue.value.mission_id, at_issue.value.mission_state) == (mission, how)
    assert (at_issue.value.status_code, at_issue.value.code) == (403, "MISSION_ENDED")
    with pytest.raises(MissionEndedError) as at_refresh:
        world.stack.passports.refresh(passport.token)
    assert (at_refresh.value.mission_id, at_refresh.value.mission_state) == (mission, how)
    with pytest.raises(UnauthorizedError):
        world.post(passport.token)
    assert world.stack.passports.list_active() == []
    assert world.stack.passports.verify(passport.token)["valid"] is False
    assert world.stack.missions.get(mission)["status"] == how


def test_mission_not_found(world: World) -> None:
    with pytest.raises(MissionEndedError) as missing:
        world.stack.passports.issue(world.agent().id, intent="x", services=["slack"], mission_ids=["ms_unknown"])
    assert (missing.value.mission_id, missing.value.mission_state) == ("ms_unknown", "not_found")
    assert missing.value.status_code == 404


# Caps.


@pytest.mark.parametrize("caps", [{"max_actions": 1}, {"max_actions_per_service": {"slack": 1}}], ids=["all", "one service"])
def test_caps_block(world: World, caps: dict[str, Any]) -> None:
    agent = world.agent("logged")
    mission = world.stack.missions.open("Interop", **caps)["mission_id"]
    token = world.stack.passports.issue(agent.id, intent="x", services=["slack"], mission_ids=[mission]).token
    assert world.post(token).status == 200
    with pytest.raises(ForbiddenError) as refused:
        world.post(token)
    assert refused.value.code == "MISSION_CAP_EXCEEDED"
    assert len(world.slack.requests) == 1
    assert [event["severity"] for event in world.events(agent.id, "mission_cap_exceeded")] == ["critical"]


def test_caps_warn(world: World) -> None:
    agent = world.agent()
    mission = world.stack.missions.open("Interop", max_actions=1, cap_behavior={"max_actions": "warn"})["mission_id"]
    token = world.stack.passports.issue(agent.id, intent="x", services=["slack"], mission_ids=[mission]).token
    assert [world.post(token).status for _ in range(2)] == [200, 200]
    assert [event["severity"] for event in world.events(agent.id, "mission_cap_exceeded")] == ["warning"]


# The SDK's own Mission.


def test_mission_that_ends_well(world: World) -> None:
    agent, helper = world.agent(), world.agent()
    since = len(world.judge.calls)
    with world.stack.passports.mission(
        agent_id=agent.id,
        intent="Acknowledge tickets",
        services=["slack"],
        will_delegate=True,
        estimated_duration="30m",
        checkpoint_interval="5m",
        expires_in="1h",
    ) as mission:
        mission._proxy = world.stack.proxy
        assert mission.passport is not None and mission.passport.accountability == "enforced"
        answer = mission.proxy(
            "slack",
            POST_MESSAGE,
            "POST",
            headers={"X-Trace": "t"},
            body={"channel": "#support", "text": "On it"},
            query={"pretty": "1"},
            approval_id=None,
            authority_request_id="mission-0123456789-abcdefgh",
            on_operation_id=(operations := []).append,
        )
        assert answer.status == 200 and operations == ["mission-0123456789-abcdefgh"]
        mission._submit_checkpoint()  # what its timer does
        mission.delegate(child_agent_id=helper.id)
        world.mock.advance(200)
        mission._submit_checkpoint()
        world.mock.advance(200)  # past the first deadline
        mission.proxy("slack", POST_MESSAGE, method="POST", body={"channel": "#support", "text": "Done"})
    assert mission.review_status == "clean", mission.result
    assert mission.result is not None and mission.passport is not None

    paths = world.judge.wire(since)
    assert paths == [
        "POST /v1/missions/start",
        "POST /v1/proxy",
        "POST /v1/passports/{}/checkpoint",
        "POST /v1/passports/{}/checkpoint",
        "POST /v1/proxy",
        "POST /v1/passports/{}/checkout",
        "POST /v1/missions/{}/complete",
    ]
    report = world.stack.passports.report(mission.passport.jti)
    assert [checkpoint["actions_count"] for checkpoint in report.checkpoints] == [1, 0]
    assert world.stack.missions.get(mission.mission_id)["status"] == "completed"
    world.blank(agent.id)


def test_mission_that_fails(world: World) -> None:
    agent = world.agent()
    with pytest.raises(RuntimeError, match="boom"):
        with world.stack.passports.mission(agent.id, "Acknowledge tickets", ["slack"]) as mission:
            world.post(mission.token)
            mission.log(service="slack", method="POST", target=POST_MESSAGE)  # by hand, as for a call of one's own
            raise RuntimeError("boom")
    assert world.stack.missions.get(mission.mission_id)["status"] == "revoked"
    report = world.stack.passports.report(mission.passport.jti)
    assert report.checkout is not None
    assert report.checkout["summary"] == "Mission failed: RuntimeError: boom"
    with pytest.raises(UnauthorizedError):
        world.post(mission.token)


def test_mission_bound_to_an_open_one(world: World) -> None:
    agent = world.agent()
    opened = world.stack.missions.open("Long run", expires_in_seconds=3600)["mission_id"]
    with world.stack.passports.mission(agent.id, "Part one", ["slack"], mission_id=opened) as mission:
        mission._proxy = world.stack.proxy
        mission.proxy("slack", POST_MESSAGE, "POST", body={})
    assert mission.review_status == "clean"
    assert world.stack.missions.get(opened)["status"] == "live", "who opened it closes it"
    with world.stack.passports.mission(agent.id, "Part two", ["slack"], mission_id=opened) as second:
        assert second.passport.jti != mission.passport.jti
    world.stack.missions.complete(opened)
    with pytest.raises(MissionEndedError):
        with world.stack.passports.mission(agent.id, "Part three", ["slack"], mission_id=opened):
            raise AssertionError("the body must not run")


def test_mission_killed_half_way(world: World) -> None:
    agent = world.agent()
    with pytest.raises(UnauthorizedError) as killed:
        with world.stack.passports.mission(agent.id, "Acknowledge tickets", ["slack"]) as mission:
            mission._proxy = world.stack.proxy
            mission.proxy("slack", POST_MESSAGE, "POST", body={})
            world.stack.passports.revoke_agent(agent.id, reason="misbehaves")
            mission.proxy("slack", POST_MESSAGE, "POST", body={})
    assert killed.value.code == "PASSPORT_REVOKED"
    assert len(world.slack.requests) == 1
    assert world.stack.missions.get(mission.mission_id)["status"] == "revoked"


def test_continuous_mission(world: World) -> None:
    agent = world.agent()
    since = len(world.judge.calls)
    runs = world.stack.passports.continuous_mission(
        agent_id=agent.id,
        intent="Watch the channel",
        services=["slack"],
        rotation_interval="1h",
        will_delegate=False,
        checkpoint_interval="10m",
        mission_id=None,
        expires_in="24h",
    )
    first = next(runs)
    assert (first.rotation_count, first.should_rotate) == (0, False)
    first._proxy = world.stack.proxy
    first.proxy("slack", POST_MESSAGE, "POST", body={})
    second = next(runs)
    assert (second.rotation_count, second.mission_id) == (1, first.mission_id)
    assert second.passport.jti != first.passport.jti
    assert first.review_status == "clean"
    with pytest.raises(UnauthorizedError):
        world.post(first.token)
    runs.close()
    assert second.review_status == "clean"
    assert [path for path in world.judge.wire(since) if path != "POST /v1/proxy"] == [
        "POST /v1/missions/start",
        "POST /v1/passports/{}/checkout",
        "POST /v1/passports/issue",
        "POST /v1/passports/{}/checkout",
        "POST /v1/missions/{}/complete",
    ]
    assert world.stack.missions.get(first.mission_id)["status"] == "completed"


def test_continuous_mission_ends_with_its_mission(world: World) -> None:
    agent = world.agent("logged")
    opened = world.stack.missions.open("Watch", expires_in_seconds=600)["mission_id"]
    runs = world.stack.passports.continuous_mission(agent.id, "Watch", ["slack"], mission_id=opened)
    next(runs)
    world.mock.advance(601)
    with pytest.raises(MissionEndedError) as over:
        next(runs)
    assert over.value.mission_state == "expired"
