"""The kill switch in all its forms, and delegation with what a revocation does to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from getstack import ForbiddenError, NotFoundError, StackError, UnauthorizedError

from conftest import SLACK_SCOPES, World
from test_passports import claims

# The kill switch.

KILLS: dict[str, Callable[[World, Any, Any], Any]] = {
    "revoke": lambda world, agent, passport: world.stack.passports.revoke(passport.jti, reason="test"),
    "revoke without a reason": lambda world, agent, passport: world.stack.passports.revoke(passport.jti),
    "revoke_agent": lambda world, agent, passport: world.stack.passports.revoke_agent(agent.id, reason="test"),
    "revoke_session": lambda world, agent, passport: world.stack.passports.revoke_session(
        claims(passport.token)["stk"]["session_id"], reason="test"
    ),
    "revoke_all": lambda world, agent, passport: world.stack.passports.revoke_all(reason="test"),
    "revoke the grants": lambda world, agent, passport: world.stack.services.revoke_agent_access(agent.id),
    "disconnect": lambda world, agent, passport: world.stack.services.disconnect(world.connection),
    "delete the agent": lambda world, agent, passport: world.stack.agents.delete(agent.id),
    "revoke the Mission": lambda world, agent, passport: world.stack.missions.revoke(
        claims(passport.token)["stk"]["mission_ids"][0], reason="adversarial"
    ),
    "complete the Mission": lambda world, agent, passport: world.stack.missions.complete(
        claims(passport.token)["stk"]["mission_ids"][0]
    ),
}


@pytest.mark.parametrize("kill", KILLS.values(), ids=KILLS.keys())
def test_kill_switch(world: World, kill: Callable[[World, Any, Any], Any]) -> None:
    agent = world.agent()
    passport = world.passport(agent.id)
    assert world.post(passport.token).status == 200
    assert isinstance(kill(world, agent, passport), dict)
    with pytest.raises(UnauthorizedError) as dead:
        world.post(passport.token)
    assert dead.value.code == "PASSPORT_REVOKED"
    assert len(world.slack.requests) == 1, "nothing more reaches the provider"
    assert world.stack.passports.list_active() == []
    assert world.stack.passports.verify(passport.token)["valid"] is False
    actions = [entry["action"] for entry in world.stack.audit.list(limit=100)["entries"]]
    assert "passport.revoke" in actions


@pytest.mark.parametrize("kill", ["revoke", "revoke_agent", "revoke_session"])
def test_kill_switch_spares_others(world: World, kill: str) -> None:
    agent, bystander = world.agent(), world.agent()
    passport, kept = world.passport(agent.id), world.passport(bystander.id)
    KILLS[kill](world, agent, passport)
    assert world.post(kept.token).status == 200
    assert [row["jti"] for row in world.stack.passports.list_active()] == [kept.jti]


def test_use_after_revocation_is_seen(world: World) -> None:
    agent = world.agent("logged")
    passport = world.passport(agent.id)
    world.stack.passports.revoke(passport.jti)
    with pytest.raises(UnauthorizedError):
        world.post(passport.token)
    assert [event["severity"] for event in world.events(agent.id, "revoked_passport_use")] == ["critical"]


def test_revoke_unknown(world: World) -> None:
    for call in (
        lambda: world.stack.passports.revoke("pp_unknown"),
        lambda: world.stack.passports.revoke_agent("agt_unknown"),
    ):
        with pytest.raises(NotFoundError):
            call()


# Delegation.


def chain(world: World, hops: int) -> list[Any]:
    passports = [world.passport(world.agent().id, will_delegate=True)]
    for _ in range(hops):
        passports.append(world.stack.passports.delegate(passports[-1].token, world.agent().id))
    return passports


def test_delegation_to_depth_four(world: World) -> None:
    passports = chain(world, 4)
    root = claims(passports[0].token)["stk"]
    for depth, passport in enumerate(passports):
        stk = claims(passport.token)["stk"]
        assert stk["delegation_depth"] == depth
        assert (stk["session_id"], stk["mission_ids"]) == (root["session_id"], root["mission_ids"])
        assert stk.get("parent_passport_id") == (passports[depth - 1].jti if depth else None)
        assert claims(passport.token)["exp"] <= claims(passports[0].token)["exp"]
        assert world.post(passport.token).status == 200
    assert {row["jti"] for row in world.stack.passports.list_active(session_id=root["session_id"])} == {
        p.jti for p in passports
    }

    deepest = world.agent()
    with pytest.raises(StackError) as refused:
        world.stack.passports.delegate(passports[4].token, deepest.id)
    assert (refused.value.status_code, refused.value.code) == (400, "DELEGATION_DEPTH_EXCEEDED")


def test_delegation_forms_of_scopes(world: World) -> None:
    tracker = world.custom("tracker", "tracker.example")
    agent, child = world.agent(), world.agent()
    world.grant(agent.id, tracker, ["use"])
    world.grant(child.id, tracker, ["use"])
    parent = world.passport(agent.id, services=("slack", "tracker"), will_delegate=True)
    delegate = world.stack.passports.delegate

    def services(passport: Any) -> dict[str, list[str]]:
        return {entry["service_name"]: entry["scopes"] for entry in claims(passport.token)["stk"]["services"]}

    everything = {"slack": SLACK_SCOPES, "tracker": ["use"]}
    assert {name: sorted(scopes) for name, scopes in services(delegate(parent.token, child.id)).items()} == everything
    assert set(services(delegate(parent.token, child.id, scopes=["tracker"]))) == {"tracker"}
    narrowed = [{"service_connection_id": world.connection, "scopes": ["chat:write"]}]
    passport = delegate(parent_token=parent.token, child_agent_id=child.id, scopes=narrowed, ttl_seconds=120)
    assert services(passport) == {"slack": ["chat:write"]}
    assert claims(passport.token)["exp"] - claims(passport.token)["iat"] <= 120
    with pytest.raises(ForbiddenError):
        world.stack.proxy.get("tracker", "https://tracker.example/x", passport_token=passport.token)


def test_delegation_only_narrows(world: World) -> None:
    agent, child = world.agent(), world.agent()
    tracker = world.custom("tracker", "tracker.example")
    world.grant(child.id, tracker, ["use"])
    narrow = [{"service_connection_id": world.connection, "scopes": ["chat:write"]}]
    parent = world.passport(agent.id, will_delegate=True, scopes=narrow)
    for wider in (
        [{"service_connection_id": world.connection, "scopes": ["chat:write", "channels:read"]}],
        [{"service_connection_id": tracker, "scopes": ["use"]}],
    ):
        with pytest.raises(StackError) as refused:
            world.stack.passports.delegate(parent.token, child.id, scopes=wider)
        assert (refused.value.status_code, refused.value.code) == (400, "SCOPE_ESCALATION")
    violations = world.stack.security_events.list()["events"]
    assert [event["severity"] for event in violations if event["signal_type"] == "delegation_violation"] == ["warning"] * 2


def test_delegation_keeps_constraints(world: World) -> None:
    agent, child = world.agent("logged"), world.agent("logged")
    only_support = {"path": "body.channel", "op": "eq", "value": "#support"}
    scope = {"service_connection_id": world.connection, "scopes": ["chat:write"], "constraints": [only_support]}
    parent = world.passport(agent.id, will_delegate=True, scopes=[scope])
    loose = [{"service_connection_id": world.connection, "scopes": ["chat:write"]}]
    for scopes in (None, loose):
        try:
            passport = world.stack.passports.delegate(parent.token, child.id, scopes=scopes)
        except StackError as refused:
            assert scopes is loose and (refused.status_code, refused.code) == (400, "SCOPE_ESCALATION")
            continue
        with pytest.raises(ForbiddenError):
            world.stack.proxy.post(
                "slack", "https://slack.com/api/chat.postMessage", body={"channel": "#x"}, passport_token=passport.token
            )


@pytest.mark.parametrize(
    ("parent_mode", "child_mode"), [("enforced", "logged"), ("enforced", "standard"), ("logged", "standard")]
)
def test_delegation_never_weakens(world: World, parent_mode: str, child_mode: str) -> None:
    parent = world.passport(world.agent(parent_mode).id, will_delegate=True)
    with pytest.raises(StackError) as refused:
        world.stack.passports.delegate(parent.token, world.agent(child_mode).id)
    assert (refused.value.status_code, refused.value.code) == (400, "DELEGATION_ACCOUNTABILITY_VIOLATION")


def test_revocation_cascades(world: World) -> None:
    root, first, second, third = chain(world, 3)
    world.stack.passports.revoke(first.jti, reason="stop the branch")
    for passport in (first, second, third):
        with pytest.raises(UnauthorizedError) as dead:
            world.post(passport.token)
        assert dead.value.code == "PASSPORT_REVOKED"
    assert world.post(root.token).status == 200
    entries = world.stack.audit.list(limit=100)["entries"]
    revoked = {entry["passport_jti"]: entry["action"] for entry in entries if entry["action"].startswith("passport.revoke")}
    assert revoked == {
        first.jti: "passport.revoke",
        second.jti: "passport.revoke_cascade",
        third.jti: "passport.revoke_cascade",
    }


def test_delegate_from_a_dead_passport(world: World) -> None:
    parent = world.passport(world.agent().id, will_delegate=True)
    world.stack.passports.revoke(parent.jti)
    with pytest.raises(UnauthorizedError) as dead:
        world.stack.passports.delegate(parent.token, world.agent().id)
    assert dead.value.code == "PASSPORT_REVOKED"
