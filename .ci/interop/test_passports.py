"""Passports: issue, verify, refresh, checkpoints, silence, checkout, report, and offline verification."""

from __future__ import annotations

import base64
import json
from datetime import datetime
from typing import Any

import httpx
import jwt
import pytest
from getstack import (
    MissionEndedError,
    NotFoundError,
    StackError,
    UnauthorizedError,
    verify_passport_header,
    verify_passport_offline,
)

from conftest import POST_MESSAGE, World


def claims(token: str) -> dict[str, Any]:
    read: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return read


def when(text: str) -> datetime:
    parsed = datetime.fromisoformat(text.replace("Z", "+00:00"))
    assert parsed.utcoffset() is not None, text
    return parsed


def test_issue_every_field(world: World) -> None:
    agent = world.agent()
    mission = world.stack.missions.open("Post updates", agent_id=agent.id, expires_in_seconds=3600)
    scope = {"service_connection_id": world.connection, "scopes": ["chat:write"], "allow_data_from": []}
    passport = world.stack.passports.issue(
        agent_id=agent.id,
        intent="Post updates",
        services=["slack"],
        will_delegate=True,
        estimated_duration="30m",
        checkpoint_interval="10m",
        ttl_seconds=1800,
        scopes=[scope],
        authority_binding_ids=[],
        mission_ids=[mission["mission_id"]],
    )
    assert passport.accountability == "enforced"
    read = claims(passport.token)
    assert (read["iss"], read["aud"], read["sub"], read["jti"]) == ("getstack.run", "stack:passport", agent.id, passport.jti)
    assert read["exp"] - read["iat"] == 600, "an enforced passport lives until its first checkpoint"
    assert 0 <= when(passport.expires_at).timestamp() - read["exp"] < 1
    stk = read["stk"]
    assert (stk["operator_id"], stk["agent_id"], stk["agent_name"]) == (world.mock.operator_id, agent.id, agent.name)
    assert stk["session_id"].startswith("ses_")
    assert stk["identity_claims"] == []
    assert stk["delegation_depth"] == 0
    assert stk["mission_ids"] == [mission["mission_id"]]
    assert (stk["accountability"], stk["checkpoint_interval"]) == ("enforced", 600)
    assert (stk["intent_summary"], stk["intent_services"]) == ("Post updates", ["slack"])
    (service,) = stk["services"]
    assert (service["service_name"], service["connection_id"]) == ("slack", world.connection)
    assert (service["scopes"], service["allow_data_from"]) == (["chat:write"], [])


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"services": ["slack"], "intent": None}, None),
        ({"intent": None, "services": None}, "ACCOUNTABILITY_REQUIRED"),
        ({"ttl_seconds": 59}, "INVALID_REQUEST"),
        ({"ttl_seconds": 3601}, "INVALID_REQUEST"),
        ({"checkpoint_interval": "59s"}, "INVALID_REQUEST"),
        ({"checkpoint_interval": "2h"}, "INVALID_REQUEST"),
        ({"intent": "x" * 501}, "INVALID_REQUEST"),
    ],
    ids=["no summary", "no intent", "ttl low", "ttl high", "interval low", "interval high", "summary long"],
)
def test_issue_refuses(world: World, fields: dict[str, Any], code: str | None) -> None:
    agent = world.agent()
    mission = world.stack.missions.open("Interop")
    with pytest.raises(StackError) as refused:
        world.stack.passports.issue(
            **{"agent_id": agent.id, "intent": "x", "services": ["slack"], "mission_ids": [mission["mission_id"]], **fields}
        )
    assert refused.value.status_code == 400
    assert refused.value.code in ({code} if code else {"ACCOUNTABILITY_REQUIRED", "INVALID_REQUEST"})


def test_issue_scopes_only_narrow(world: World) -> None:
    agent = world.agent(granted=False)
    world.grant(agent.id, world.connection, ["chat:write"])
    with pytest.raises(StackError) as refused:
        world.passport(agent.id, scopes=[{"service_connection_id": world.connection, "scopes": ["channels:read"]}])
    assert refused.value.status_code in (400, 403)


def test_one_mission_rule(world: World) -> None:
    before = len(world.judge.calls)
    for mission_ids in (None, [], ["a", "b"], [""]):
        with pytest.raises(ValueError, match="exactly one Mission"):
            world.stack.passports.issue("agt_x", mission_ids=mission_ids)
    assert len(world.judge.calls) == before


def test_mission_of_another_agent(world: World) -> None:
    agent, other = world.agent(), world.agent()
    mission = world.stack.missions.open("Interop", agent_id=other.id)
    with pytest.raises(StackError) as refused:
        world.stack.passports.issue(agent.id, intent="x", services=["slack"], mission_ids=[mission["mission_id"]])
    assert refused.value.status_code in (403, 404)


def test_standard_needs_no_intent(world: World) -> None:
    agent = world.agent("standard")
    mission = world.stack.missions.open("Interop")
    passport = world.stack.passports.issue(agent.id, mission_ids=[mission["mission_id"]])
    assert passport.accountability == "standard"
    assert world.post(passport.token).status == 200
    with pytest.raises(NotFoundError) as refused:
        world.stack.passports.checkpoint(passport.jti, services_used=["slack"], actions_count=1)
    assert refused.value.code == "CHECKPOINT_NOT_AVAILABLE"
    result = world.stack.passports.checkout(passport.jti, services_used=["slack"], actions_count=1)
    assert (result.review_status, result.flags or []) == ("clean", [])


def test_issue_passport_session(world: World) -> None:
    agent = world.agent("logged")
    mission = world.stack.missions.open("Interop", agent_id=agent.id, expires_in_seconds=3600)
    session = world.stack.issue_passport(
        agent_id=agent.id,
        ttl_seconds=600,
        mission_ids=[mission["mission_id"]],
        intent={"summary": "Interop", "services": ["slack"]},
    )
    first = session.token
    assert session.get_token() == first
    assert session.expires_at_seconds == claims(first)["exp"]
    world.mock.advance(60)
    renewed = session.get_token(grace_seconds=3600)
    assert claims(renewed)["jti"] == claims(first)["jti"], "a refresh keeps the passport"
    assert claims(renewed)["exp"] >= claims(first)["exp"] + 60
    world.stack.missions.complete(mission["mission_id"])
    with pytest.raises(MissionEndedError) as ended:
        session.get_token(grace_seconds=7200)
    assert ended.value.mission_state == "completed"


def test_issue_passport_every_field(world: World) -> None:
    agent = world.agent("logged")
    mission = world.stack.missions.open("Interop", agent_id=agent.id)
    fields: dict[str, Any] = {
        "agent_id": agent.id,
        "services": [{"service_connection_id": world.connection, "scopes": ["chat:write"]}],
        "intents": [],
        "ttl_seconds": 600,
        "authority_binding_ids": [],
        "mission_ids": [mission["mission_id"]],
        "intent": {"summary": "Interop", "services": ["slack"]},
    }
    token = world.stack.issue_passport(accountability_mode="enforced", **fields).token
    stk = claims(token)["stk"]
    assert stk["accountability"] == "enforced", "a passport may be held closer to account than its agent"
    assert [service["scopes"] for service in stk["services"]] == [["chat:write"]]
    assert world.post(token).status == 200
    with pytest.raises(StackError) as weaker:
        world.stack.issue_passport(accountability_mode="standard", **fields)
    assert weaker.value.status_code == 400


def test_verify(world: World) -> None:
    agent = world.agent()
    passport = world.passport(agent.id)
    verify = world.stack.passports.verify
    good = verify(passport.token)
    assert good["valid"] is True
    assert good["claims"]["jti"] == passport.jti

    head, body, signature = passport.token.split(".")
    flipped = ("A" if signature[0] != "A" else "B") + signature[1:]
    assert verify(f"{head}.{body}.{flipped}")["reason"] == "invalid_signature"
    assert verify("rubbish")["reason"] == "malformed"

    world.stack.passports.revoke(passport.jti, reason="tested")
    revoked = verify(passport.token)
    assert (revoked["valid"], revoked["reason"], revoked["revocation_reason"]) == (False, "revoked", "tested")
    assert when(revoked["revoked_at"])

    logged = world.passport(world.agent("logged").id, ttl_seconds=60)
    world.mock.advance(61)
    assert verify(logged.token)["reason"] == "expired"


def test_verify_needs_no_key(world: World) -> None:
    token = world.passport(world.agent().id).token
    answer = httpx.post(world.mock.url + "/v1/passports/verify", json={"token": token})
    assert (answer.status_code, answer.json()["valid"]) == (200, True)


def test_list_active(world: World) -> None:
    agent, other = world.agent(), world.agent()
    passport, foreign = world.passport(agent.id), world.passport(other.id)
    active = world.stack.passports.list_active
    assert {row["jti"] for row in active()} == {passport.jti, foreign.jti}
    assert [row["jti"] for row in active(agent_id=agent.id)] == [passport.jti]
    session = claims(foreign.token)["stk"]["session_id"]
    assert [row["jti"] for row in active(session_id=session)] == [foreign.jti]
    assert active(agent_id=agent.id, session_id=session) == []
    world.stack.passports.revoke(passport.jti)
    assert [row["jti"] for row in active()] == [foreign.jti]


def test_refresh(world: World) -> None:
    agent = world.agent("logged")
    passport = world.passport(agent.id, ttl_seconds=300)
    world.mock.advance(200)
    refreshed = world.stack.passports.refresh(passport.token, ttl_seconds=600)
    assert refreshed.jti == passport.jti
    assert when(refreshed.expires_at) > when(passport.expires_at)
    before, after = claims(passport.token), claims(refreshed.token)
    assert after["exp"] - after["iat"] == 600
    assert after["stk"]["session_id"] == before["stk"]["session_id"]
    world.mock.advance(200)
    assert world.post(passport.token).status == 200, "the server's record decides, not the old token's exp"
    world.mock.advance(500)
    with pytest.raises(UnauthorizedError) as expired:
        world.post(refreshed.token)
    assert expired.value.code == "PASSPORT_EXPIRED"
    assert [event["severity"] for event in world.events(agent.id, "expired_passport_use")] == ["warning"]


def test_refresh_never_outlives_the_mission(world: World) -> None:
    agent = world.agent("logged")
    mission = world.stack.missions.open("Interop", expires_in_seconds=600)
    passport = world.stack.passports.issue(
        agent.id, intent="x", services=["slack"], ttl_seconds=3600, mission_ids=[mission["mission_id"]]
    )
    assert when(passport.expires_at) <= when(mission["expires_at"])
    refreshed = world.stack.passports.refresh(passport.token, ttl_seconds=3600)
    assert when(refreshed.expires_at) <= when(mission["expires_at"])


def test_refresh_refused(world: World) -> None:
    passport = world.passport(world.agent("logged").id)
    world.stack.passports.revoke(passport.jti)
    with pytest.raises(UnauthorizedError) as revoked:
        world.stack.passports.refresh(passport.token)
    assert revoked.value.code == "PASSPORT_REVOKED"

    checked_out = world.passport(world.agent("logged").id)
    world.stack.passports.checkout(checked_out.jti, services_used=[], actions_count=0)
    with pytest.raises(UnauthorizedError) as over:
        world.stack.passports.refresh(checked_out.token)
    assert over.value.code == "PASSPORT_REVOKED"


# Checkpoints and silence.


def test_checkpoint_extends(world: World) -> None:
    agent = world.agent()
    passport = world.passport(agent.id, checkpoint_interval="2m")
    world.mock.advance(100)
    world.post(passport.token)
    answer = world.stack.passports.checkpoint(
        passport_jti=passport.jti,
        services_used=["slack"],
        actions_count=1,
        tool_calls=[{"service": "slack", "method": "POST", "target": POST_MESSAGE}],
        summary="Said hello",
        delegated_to=None,
    )
    assert answer.passport_jti == passport.jti
    assert answer.flags in (None, [])
    assert answer.new_expires_at is not None
    assert 95 <= (when(answer.new_expires_at) - when(passport.expires_at)).total_seconds() <= 105
    world.mock.advance(100)  # past the first deadline
    assert world.post(passport.token).status == 200
    world.blank(agent.id)


def test_silence(world: World) -> None:
    agent = world.agent()
    passport = world.passport(agent.id, checkpoint_interval="2m")
    assert world.post(passport.token).status == 200
    world.mock.advance(121)
    (event,) = world.events(agent.id, "checkpoint_silence")
    assert (event["severity"], event["passport_jti"]) == ("critical", passport.jti)
    with pytest.raises(UnauthorizedError) as dead:
        world.post(passport.token)
    assert dead.value.code in ("PASSPORT_REVOKED", "PASSPORT_EXPIRED")
    with pytest.raises(StackError):
        world.stack.passports.checkpoint(passport.jti, services_used=[], actions_count=0)
    assert len(world.slack.requests) == 1
    assert world.stack.passports.list_active() == []


def test_no_silence_while_logged(world: World) -> None:
    agent = world.agent("logged")
    passport = world.passport(agent.id, checkpoint_interval="2m")
    world.mock.advance(200)
    assert world.post(passport.token).status == 200
    world.blank(agent.id)


@pytest.mark.parametrize(("mode", "severity"), [("enforced", "critical"), ("logged", "warning")])
def test_checkpoint_outside_scope(world: World, mode: str, severity: str) -> None:
    agent = world.agent(mode)
    passport = world.passport(agent.id)
    world.stack.passports.checkpoint(passport.jti, services_used=["slack", "github"], actions_count=1)
    assert [event["severity"] for event in world.events(agent.id, "credential_outside_scope")] == [severity]


def test_checkpoint_refuses(world: World) -> None:
    passport = world.passport(world.agent().id)
    with pytest.raises(StackError) as negative:
        world.stack.passports.checkpoint(passport.jti, services_used=[], actions_count=-1)
    assert (negative.value.status_code, negative.value.code) == (400, "INVALID_REQUEST")
    with pytest.raises(StackError) as long:
        world.stack.passports.checkpoint(passport.jti, services_used=[], actions_count=0, summary="s" * 1001)
    assert (long.value.status_code, long.value.code) == (400, "INVALID_REQUEST")
    with pytest.raises(NotFoundError):
        world.stack.passports.checkpoint("pp_unknown", services_used=[], actions_count=0)


# Checkout and report.


def test_checkout_and_report(world: World) -> None:
    agent = world.agent()
    helper = world.agent()
    passport = world.passport(agent.id, will_delegate=True)
    world.post(passport.token)
    call = {"service": "slack", "method": "POST", "target": POST_MESSAGE}
    world.stack.passports.checkpoint(
        passport.jti, services_used=["slack"], actions_count=1, tool_calls=[call], delegated_to=[helper.id]
    )
    result = world.stack.passports.checkout(
        passport_jti=passport.jti,
        services_used=["slack"],
        actions_count=1,
        tool_calls=[call],
        summary="All said",
        delegated_to=[helper.id],
    )
    assert (result.passport_jti, result.review_status, result.flags or []) == (passport.jti, "clean", [])

    report = world.stack.passports.report(passport.jti)  # exactly the five keys, or the SDK raises
    assert report.passport["jti"] == passport.jti
    assert "token" not in report.passport
    assert report.intent is not None and report.intent["summary"] == "Interop"
    (checkpoint,) = report.checkpoints
    assert checkpoint["actions_count"] == 1
    assert report.checkout is not None and report.checkout["checkout_id"] == result.checkout_id
    assert report.checkout["summary"] == "All said"

    with pytest.raises(UnauthorizedError) as over:
        world.post(passport.token)
    assert over.value.code == "PASSPORT_REVOKED"
    assert [event["severity"] for event in world.events(agent.id, "post_checkout_access")] == ["critical"]


def test_report_before_anything(world: World) -> None:
    passport = world.passport(world.agent().id)
    report = world.stack.passports.report(passport.jti)
    assert (report.checkpoints, report.checkout, report.review) == ([], None, None)
    with pytest.raises(NotFoundError):
        world.stack.passports.report("pp_unknown")


@pytest.mark.parametrize(
    ("report", "flag", "status"),
    [
        ({"services_used": ["slack", "github"], "actions_count": 1}, "undeclared_service", "blocked"),
        ({"services_used": ["slack"], "actions_count": 0}, "unreported_action", "flagged"),
        (
            {
                "services_used": ["slack"],
                "actions_count": 2,
                "tool_calls": [
                    {"service": "slack", "method": "POST", "target": POST_MESSAGE},
                    {"service": "slack", "method": "DELETE", "target": "https://slack.com/api/everything"},
                ],
            },
            "phantom_action",
            "flagged",
        ),
        (
            {
                "services_used": ["slack"],
                "actions_count": 7,
                "tool_calls": [{"service": "slack", "method": "POST", "target": POST_MESSAGE}],
            },
            "action_count_mismatch",
            "clean",
        ),
        (
            {
                "services_used": ["slack"],
                "actions_count": 1,
                "tool_calls": [{"service": "slack", "method": "POST", "target": POST_MESSAGE}],
                "delegated_to": ["agt_somebody"],
            },
            "undeclared_delegation",
            "flagged",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_checkout_flags(world: World, report: dict[str, Any], flag: str, status: str) -> None:
    passport = world.passport(world.agent("logged").id)
    world.post(passport.token)
    result = world.stack.passports.checkout(passport.jti, **report)
    assert flag in [item["type"] for item in result.flags or []]
    assert result.review_status == status


# Offline.


def jwks(world: World) -> dict[str, Any]:
    answer = httpx.get(world.mock.url + "/v1/.well-known/jwks.json")
    assert answer.status_code == 200
    keys: dict[str, Any] = answer.json()
    return keys


def test_jwks(world: World) -> None:
    (key,) = jwks(world)["keys"]
    assert (key["kty"], key["crv"]) == ("OKP", "Ed25519")
    assert key.get("use", "sig") == "sig" and key.get("alg", "EdDSA") == "EdDSA"
    assert "d" not in key
    token = world.passport(world.agent().id).token
    header = jwt.get_unverified_header(token)
    assert (header["alg"], header["kid"]) == ("EdDSA", key["kid"])


def test_offline(world: World) -> None:
    agent, child = world.agent(), world.agent()
    parent = world.passport(agent.id, will_delegate=True)
    delegated = world.stack.passports.delegate(parent.token, child.id)
    refreshed = world.stack.passports.refresh(parent.token)
    url = world.mock.url + "/v1/.well-known/jwks.json"
    (key,) = jwks(world)["keys"]
    for passport, subject in ((parent, agent.id), (delegated, child.id), (refreshed, agent.id)):
        for read in (
            verify_passport_offline(passport.token, jwks_url=url),
            verify_passport_offline(passport.token, public_jwk=key),
            verify_passport_header(passport.token, base_url=world.mock.url + "/"),
            verify_passport_header([passport.token], base_url=world.mock.url),
        ):
            assert (read["sub"], read["jti"]) == (subject, passport.jti)
            assert read["stk"]["operator_id"] == world.mock.operator_id
    world.stack.passports.revoke(parent.jti)
    assert verify_passport_offline(parent.token, public_jwk=key)["jti"] == parent.jti, "offline knows no revocation"


def test_offline_refuses(world: World) -> None:
    token = world.passport(world.agent().id).token
    (key,) = jwks(world)["keys"]
    head, body, signature = token.split(".")
    forged = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    forged["sub"] = forged["stk"]["agent_id"] = "agt_other"
    forged_body = base64.urlsafe_b64encode(json.dumps(forged).encode()).rstrip(b"=").decode()
    for bad in (f"{head}.{forged_body}.{signature}", f"{head}.{body}.{signature[::-1]}", token + "x"):
        with pytest.raises(ValueError, match="invalid"):
            verify_passport_offline(bad, public_jwk=key)
    with pytest.raises(ValueError, match="invalid"):
        verify_passport_offline(token, public_jwk=key, issuer="https://api.getstack.run")
    with pytest.raises(ValueError, match="invalid"):
        verify_passport_offline(token, public_jwk=key, audience="stack:agent")
    with pytest.raises(ValueError, match="invalid"):
        verify_passport_offline(
            token, public_jwk={**key, "x": base64.urlsafe_b64encode(bytes(range(32))).rstrip(b"=").decode()}
        )
