"""Agents: every method and parameter, the defaults, the preset, the refusals."""

from __future__ import annotations

import pytest
from getstack import NotFoundError, StackError

from conftest import World


def test_register_defaults(world: World) -> None:
    agent = world.stack.agents.register("plain")
    assert agent.id.startswith("agt_")
    assert agent.operator_id == world.mock.operator_id
    assert (agent.name, agent.status) == ("plain", "active")
    assert (agent.accountability_mode, agent.credential_access, agent.key_mode) == (
        "enforced",
        "proxy_only",
        "stack_managed",
    )
    assert (agent.on_warning, agent.on_critical) == ("notify", "notify")
    assert (agent.llm_inject_system_prompt, agent.llm_redact_pii) == (True, True)
    assert agent.passport_blocked is False
    assert agent.passport_blocked_reason is None and agent.passport_blocked_at is None
    assert agent.created_at == agent.updated_at != ""


def test_register_every_field(world: World) -> None:
    agent = world.stack.agents.register(
        name="full",
        description="Reads tickets",
        profile="proxied-llm-bot",
        accountability_mode="standard",
        credential_access="direct",
        key_mode="customer_managed",
        on_warning="block",
        on_critical="block",
        llm_inject_system_prompt=False,
        llm_redact_pii=False,
    )
    assert agent.description == "Reads tickets"
    # Fields that are given win over the preset.
    assert (agent.accountability_mode, agent.credential_access, agent.key_mode) == ("standard", "direct", "customer_managed")
    assert (agent.on_warning, agent.on_critical) == ("block", "block")
    assert (agent.llm_inject_system_prompt, agent.llm_redact_pii) == (False, False)


def test_profile_expands(world: World) -> None:
    agent = world.stack.agents.register("bot", profile="proxied-llm-bot")
    assert (agent.accountability_mode, agent.credential_access, agent.key_mode) == ("logged", "proxy_only", "stack_managed")


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "Has Spaces"},
        {"name": "x"},
        {"name": "-edge"},
        {"name": "a" * 65},
        {"name": "fine", "description": "d" * 257},
        {"name": "fine", "accountability_mode": "strict"},
        {"name": "fine", "credential_access": "sometimes"},
        {"name": "fine", "key_mode": "none"},
        {"name": "fine", "profile": "unknown"},
        {"name": "fine", "on_warning": "explode"},
    ],
    ids=lambda fields: ",".join(f"{k}={str(v)[:12]}" for k, v in fields.items()),
)
def test_register_refuses(world: World, fields: dict[str, str]) -> None:
    with pytest.raises(StackError) as refused:
        world.stack.agents.register(**fields)
    assert (refused.value.status_code, refused.value.code) == (400, "INVALID_REQUEST")


def test_life(world: World) -> None:
    agents = world.stack.agents
    first, second = agents.register("first"), agents.register("second")
    assert agents.get(first.id) == first
    assert {agent.id for agent in agents.list()} >= {first.id, second.id}

    changed = agents.update(
        first.id,
        description="new",
        accountability_mode="logged",
        credential_access="direct",
        on_warning="block",
        on_critical="block",
        llm_inject_system_prompt=False,
        llm_redact_pii=False,
    )
    assert (changed.description, changed.accountability_mode, changed.credential_access) == ("new", "logged", "direct")
    assert (changed.on_warning, changed.on_critical) == ("block", "block")
    assert (changed.llm_inject_system_prompt, changed.llm_redact_pii) == (False, False)
    assert agents.get(first.id) == changed

    assert agents.suspend(first.id).status == "suspended"
    mission = world.stack.missions.open("Interop")
    with pytest.raises(StackError) as refused:
        world.stack.passports.issue(first.id, intent="x", services=["slack"], mission_ids=[mission["mission_id"]])
    assert refused.value.status_code == 403
    assert agents.activate(first.id).status == "active"

    assert isinstance(agents.delete(first.id), dict)
    with pytest.raises(NotFoundError) as gone:
        agents.get(first.id)
    assert gone.value.code == "NOT_FOUND"
    assert first.id not in {agent.id for agent in agents.list()}


def test_key_mode_is_fixed(world: World) -> None:
    agent = world.stack.agents.register("keys")
    with pytest.raises(StackError) as refused:
        world.stack.agents.update(agent.id, key_mode="co_signed")
    assert refused.value.status_code == 400


@pytest.mark.parametrize("method", ["get", "suspend", "delete", "unblock"])
def test_unknown_agent(world: World, method: str) -> None:
    with pytest.raises(NotFoundError) as missing:
        getattr(world.stack.agents, method)("agt_unknown")
    assert missing.value.code == "NOT_FOUND"
