"""Reviews with governance approval, and security events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from getstack import ForbiddenError, NotFoundError, StackError, UnauthorizedError

from conftest import World

# Reviews and governance.


def flagged(world: World) -> tuple[Any, Any]:
    """A checkout that hides a call."""
    agent = world.agent("logged")
    passport = world.passport(agent.id)
    world.post(passport.token)
    checkout = world.stack.passports.checkout(passport.jti, services_used=["slack"], actions_count=0)
    assert checkout.review_status == "flagged"
    return agent, checkout


def refused_approval(call: Callable[[], Any]) -> str:
    with pytest.raises(ForbiddenError) as refused:
        call()
    assert refused.value.code == "GOVERNANCE_APPROVAL_REQUIRED"
    approval: str = refused.value.details["approval_id"]
    assert approval.startswith("gov_")
    return approval


def test_review_approved(world: World) -> None:
    agent, checkout = flagged(world)
    queue = world.stack.reviews.list(status="flagged", page=1, limit=20)
    assert queue.total == 1
    (item,) = queue.items
    assert (item.checkout_id, item.passport_jti, item.agent_id) == (checkout.checkout_id, checkout.passport_jti, agent.id)
    assert (item.agent_name, item.intent_summary, item.review_status) == (agent.name, "Interop", "flagged")
    assert [flag["type"] for flag in item.flags] == [flag["type"] for flag in checkout.flags]

    decide = world.stack.reviews.decide
    approval = refused_approval(lambda: decide(checkout.checkout_id, "approved"))
    refused_approval(
        lambda: decide(checkout.checkout_id, "approved", governance_approval_id=approval)
    )  # nobody has approved
    world.mock.approve(approval)
    result = decide(checkout.checkout_id, "approved", notes="looked fine", governance_approval_id=approval)
    assert (result.agent_id, result.decision, result.passport_blocked) == (agent.id, "approved", False)
    assert world.stack.reviews.list().items == []
    report = world.stack.passports.report(checkout.passport_jti)
    assert report.review is not None and report.review["decision"] == "approved"

    _, other = flagged(world)
    refused_approval(
        lambda: decide(other.checkout_id, "approved", governance_approval_id=approval)
    )  # used up, and not for this


def test_approvals_expire(world: World) -> None:
    _, checkout = flagged(world)
    approval = refused_approval(lambda: world.stack.reviews.decide(checkout.checkout_id, "approved"))
    world.mock.approve(approval)
    world.mock.advance(15 * 60 + 1)
    refused_approval(lambda: world.stack.reviews.decide(checkout.checkout_id, "approved", governance_approval_id=approval))


def test_review_blocked(world: World) -> None:
    agent, checkout = flagged(world)
    result = world.stack.reviews.decide(
        checkout_id=checkout.checkout_id, decision="blocked", notes="hides calls", block_future=True
    )
    assert (result.agent_id, result.decision, result.passport_blocked) == (agent.id, "blocked", True)
    blocked = world.stack.agents.get(agent.id)
    assert blocked.passport_blocked is True and blocked.passport_blocked_reason and blocked.passport_blocked_at

    with pytest.raises(ForbiddenError) as refused:
        world.passport(agent.id)
    assert refused.value.code == "PASSPORT_BLOCKED"

    approval = refused_approval(lambda: world.stack.agents.unblock(agent.id))
    world.mock.approve(approval)
    assert isinstance(world.stack.agents.unblock(agent.id, governance_approval_id=approval), dict)
    free = world.stack.agents.get(agent.id)
    assert (free.passport_blocked, free.passport_blocked_reason, free.passport_blocked_at) == (False, None, None)
    assert world.post(world.passport(agent.id).token).status == 200


def test_review_blocked_without_a_block(world: World) -> None:
    agent, checkout = flagged(world)
    result = world.stack.reviews.decide(checkout.checkout_id, "blocked")
    assert result.passport_blocked is False
    assert world.post(world.passport(agent.id).token).status == 200


def test_review_refuses(world: World) -> None:
    _, checkout = flagged(world)
    with pytest.raises(StackError) as refused:
        world.stack.reviews.decide(checkout.checkout_id, "perhaps")
    assert (refused.value.status_code, refused.value.code) == (400, "INVALID_REQUEST")
    with pytest.raises(NotFoundError):
        world.stack.reviews.decide("co_unknown", "blocked")


def test_review_pages(world: World) -> None:
    ids = {flagged(world)[1].checkout_id for _ in range(3)}
    pages = [world.stack.reviews.list("flagged", page, 2) for page in (1, 2)]
    assert [page.total for page in pages] == [3, 3]
    assert [len(page.items) for page in pages] == [2, 1]
    assert {item.checkout_id for page in pages for item in page.items} == ids
    assert world.stack.reviews.list(status="blocked").items == []


# Security events.


def test_security_events(world: World) -> None:
    agent = world.agent("logged")
    passport = world.passport(agent.id)
    world.stack.passports.checkpoint(passport.jti, services_used=["github"], actions_count=0)
    listing = world.stack.security_events.list(agent_id=agent.id, page=1, limit=10)
    (event,) = listing["events"]
    assert (listing["unresolved_count"], listing["page"], listing["limit"]) == (1, 1, 10)
    assert event["id"].startswith("sev_")
    assert (event["agent_id"], event["passport_jti"], event["operator_id"]) == (
        agent.id,
        passport.jti,
        world.mock.operator_id,
    )
    assert (event["signal_type"], event["resolved"]) == ("credential_outside_scope", False)
    assert world.stack.security_events.get(event["id"]) == event
    assert world.stack.security_events.list(agent_id=world.agent().id)["events"] == []

    assert isinstance(world.stack.security_events.resolve(event["id"]), dict)
    assert world.stack.security_events.list()["events"] == []
    resolved = world.stack.security_events.get(event["id"])
    assert resolved["resolved"] is True and resolved["resolved_at"]
    for call in (world.stack.security_events.get, world.stack.security_events.resolve):
        with pytest.raises(NotFoundError):
            call("sev_unknown")


def test_on_critical_block(world: World) -> None:
    agent = world.agent("logged", on_critical="block")
    passport = world.passport(agent.id)
    world.stack.passports.revoke(passport.jti)
    with pytest.raises(UnauthorizedError):
        world.post(passport.token)  # a critical event
    assert world.stack.agents.get(agent.id).passport_blocked is True
    with pytest.raises(ForbiddenError) as refused:
        world.passport(agent.id)
    assert refused.value.code == "PASSPORT_BLOCKED"
