"""The audit log, whose chain is computed here a second time, and the usage meters."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from getstack import StackError

from conftest import World
from test_passports import when

HASHED = ("entry_id", "timestamp", "operator_id", "agent_id", "layer", "action", "outcome", "prev_entry_hash")


def entry_hash(entry: dict[str, Any]) -> str:
    """The contract's formula: SHA-256 over JSON.stringify of these keys in this order."""
    hashed = {key: entry[key] for key in HASHED}
    return hashlib.sha256(json.dumps(hashed, separators=(",", ":"), ensure_ascii=False).encode()).hexdigest()


def test_chain(world: World) -> None:
    agent = world.agent()
    passport = world.passport(agent.id)
    world.post(passport.token)
    world.stack.passports.checkpoint(passport.jti, services_used=["slack"], actions_count=1)
    world.stack.passports.checkout(passport.jti, services_used=["slack"], actions_count=1)

    listing = world.stack.audit.list(limit=100)
    newest_first = listing["entries"]
    entries = newest_first[::-1]
    assert listing["max_timestamp"] == entries[-1]["timestamp"]
    assert [entry["timestamp"] for entry in entries] == sorted(entry["timestamp"] for entry in entries)
    previous = "0" * 64
    for entry in entries:
        assert entry["prev_entry_hash"] == previous
        assert entry["entry_hash"] == entry_hash(entry)
        assert entry["operator_id"] == world.mock.operator_id
        assert entry["layer"] in ("vault", "proxy", "dropoff", "skills", "system")
        assert entry["outcome"] in ("success", "failure", "pending", "blocked")
        previous = entry["entry_hash"]

    actions = [entry["action"] for entry in entries]
    assert {"passport.issue", "credential.proxy"} <= set(actions)
    proxied = next(entry for entry in entries if entry["action"] == "credential.proxy")
    assert (proxied["layer"], proxied["outcome"]) == ("vault", "success")
    assert (proxied["agent_id"], proxied["passport_jti"]) == (agent.id, passport.jti)

    head = world.stack.audit.chain_head()
    assert previous in head.values() and len(entries) in head.values()


def test_filters(world: World) -> None:
    agent, other = world.agent(), world.agent()
    passport = world.passport(agent.id)
    world.passport(other.id)
    mine = world.stack.audit.list(agent_id=agent.id)["entries"]
    assert mine and {entry["agent_id"] for entry in mine} == {agent.id}
    by_passport = world.stack.audit.list(passport_jti=passport.jti)["entries"]
    assert by_passport and {entry["passport_jti"] for entry in by_passport} == {passport.jti}
    everything = world.stack.audit.list(limit=100)
    assert len(world.stack.audit.list(limit=2)["entries"]) == 2
    assert world.stack.audit.list(limit=2)["entries"] == everything["entries"][:2]
    world.mock.advance(10)
    nothing = world.stack.audit.list(limit=20, since=everything["max_timestamp"])
    assert (nothing["entries"], nothing["max_timestamp"]) == ([], None)
    world.passport(agent.id)
    newer = world.stack.audit.list(since=everything["max_timestamp"])["entries"]
    assert {entry["timestamp"] > everything["max_timestamp"] for entry in newer} == {True}
    for limit in (0, 101):
        with pytest.raises(StackError) as refused:
            world.stack.audit.list(limit=limit)
        assert (refused.value.status_code, refused.value.code) == (400, "INVALID_REQUEST")


def test_verify_chain(world: World) -> None:
    world.passport(world.agent().id)
    whole = world.stack.audit.verify_chain()
    assert True in whole.values(), whole
    assert isinstance(
        world.stack.audit.verify_chain(from_date="2020-01-01T00:00:00Z", to_date="2100-01-01T00:00:00Z", limit=2), dict
    )
    with pytest.raises(StackError) as refused:
        world.stack.audit.verify_chain(from_date="yesterday")
    assert (refused.value.status_code, refused.value.code) == (400, "INVALID_REQUEST")


def test_refusals_are_audited(world: World) -> None:
    agent = world.agent("logged")
    token = world.passport(agent.id).token
    with pytest.raises(StackError):
        world.stack.proxy.get("github", "https://api.github.com/user", passport_token=token)
    outcomes = {entry["outcome"] for entry in world.stack.audit.list(agent_id=agent.id)["entries"]}
    assert outcomes & {"blocked", "failure"}


def test_no_secret_is_audited(world: World) -> None:
    token = world.passport(world.agent("logged").id).token
    world.stack.proxy.get("slack", "https://slack.com/leak?token=query-secret", passport_token=token)
    text = json.dumps(world.stack.audit.list(limit=100))
    for secret in ("xoxb-", world.mock.api_key, token, "query-secret"):
        assert secret not in text


def test_usage(world: World) -> None:
    agent = world.agent("logged")
    world.post(world.passport(agent.id).token)
    usage = world.stack.usage.get()
    assert usage["tier"] == "enterprise"
    assert when(usage["period_start"]) < when(usage["period_end"])
    assert when(usage["account_since"])
    actions = usage["consumption"]["actions"]
    assert {"used", "limit", "allowance_coverage", "allowance_tier"} <= set(actions)
    assert usage["consumption"]["activity"]["total"] >= 1 and actions["used"] >= 1
    assert usage["passthrough"] is not None
    assert usage["spend_cents"]["total"] == 0

    future = world.stack.usage.get(since="2099-01-01T00:00:00Z", until="2100-01-01T00:00:00Z")
    assert future["passthrough"] is None, "those counters exist for the running month only"
    assert future["consumption"]["actions"]["used"] == 0
    millis = world.stack.usage.get(since="0", until="4102444800000")
    assert millis["consumption"]["actions"]["used"] == actions["used"]
    with pytest.raises(StackError) as refused:
        world.stack.usage.get(since="lately")
    assert (refused.value.status_code, refused.value.code) == (400, "INVALID_REQUEST")
