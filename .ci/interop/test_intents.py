"""Intents: dry runs, approvals, and the gate on proxied writes."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from getstack import ForbiddenError, NotFoundError, StackError, UnauthorizedError

from conftest import POST_MESSAGE, World


def intent(text: str = "hello", **fields: Any) -> dict[str, Any]:
    return {
        "type": "intent",
        "intent_type": "proxy",
        "target": POST_MESSAGE,
        "action": "POST",
        "parameters": {"service": "slack", "body": {"channel": "#support", "text": text}},
        **fields,
    }


def test_simulate(world: World) -> None:
    agent = world.agent()
    token = world.passport(agent.id).token
    full = intent(
        agent_id=agent.id,
        named_intent="slack.post",
        estimated_cost=3,
        accountability="enforced",
        reason="The customer waits",
        requires=["slack:chat:write"],
        user_subject="user-7",
        submitted_at="2026-01-02T03:04:05Z",
    )
    before = world.mock.control("state")
    dry = world.stack.intents.simulate(full, token, persist=False)
    assert dry["allowed"] is True and dry["denial_reasons"] == [] and "claim_id" not in dry
    assert dry["simulated_cost"]["meters"] == {"proxy_calls": 1, "actions": 1}
    assert dry["predicted_detector_fires"] == [] and dry["diagnostics"]["approval_required"] is False
    assert world.mock.control("state") == before, "nothing is written"
    assert world.slack.requests == []

    kept = world.stack.intents.simulate(full, token, persist=True)
    assert kept["claim_id"].startswith("pc_")
    linked = world.stack.intents.simulate(full, token, intent_claim_ref=kept["claim_id"])
    assert linked["intent_claim_ref"] == kept["claim_id"] != linked["claim_id"]
    with pytest.raises(NotFoundError):
        world.stack.intents.simulate(full, token, intent_claim_ref="pc_unknown")

    stray = world.stack.intents.simulate(intent(parameters={"service": "github"}), token, persist=False)
    assert stray["allowed"] is False
    assert [(r["check"], r["code"]) for r in stray["denial_reasons"]] == [("service_scope", "FORBIDDEN")]
    fires = stray["predicted_detector_fires"]
    assert [(f["signal_type"], f["severity"]) for f in fires] == [("credential_outside_scope", "critical")]
    world.blank(agent.id)
    assert world.post(token).status == 200, "the passport lives"


def test_a_skill_and_a_model(world: World) -> None:
    world.mock.control("policy", {"require_intent_approval": True})
    token = world.passport(world.agent().id).token
    skill = {"intent_type": "skill", "target": "skl_one", "parameters": {"body": {"text": "x"}}}
    dry = world.stack.intents.simulate(skill, token)
    assert [r["code"] for r in dry["denial_reasons"]] == ["INTENT_APPROVAL_REQUIRED"]
    row = world.stack.intents.get(world.stack.intents.submit(skill, token)["approval_id"])
    assert (row["intent"]["action"], row["intent"]["target"]) == ("invoke", "skl_one")
    model = {"intent_type": "llm", "target": "https://api.openai.com/v1/chat/completions"}
    dry = world.stack.intents.simulate({**model, "parameters": {"service": "openai"}}, token)
    assert [r["check"] for r in dry["denial_reasons"]] == ["service_scope", "intent_approval"]
    with pytest.raises(StackError) as refused:
        world.stack.intents.simulate(model, token)
    assert refused.value.details["field"] == "body.intent.parameters.service"


def test_submit_and_approve(world: World) -> None:
    world.mock.control("policy", {"require_intent_approval": True})
    intents, token = world.stack.intents, world.passport(world.agent().id).token
    submitted = intents.submit(intent(), token, expires_in_seconds=120)
    assert submitted["status"] == "pending" and submitted["simulation"]["allowed"] is True
    assert submitted["simulated_claim_id"] == submitted["simulation"]["claim_id"]
    bare = intents.submit(intent("second"), token, skip_simulation=True)
    assert "simulation" not in bare and "simulated_claim_id" not in bare
    approval = submitted["approval_id"]
    assert [row["id"] for row in intents.list_pending()["items"]] == [approval, bare["approval_id"]]
    second = intents.list_pending(page=2, limit=1)
    assert [row["id"] for row in second["items"]] == [bare["approval_id"]] and second["total"] == 2

    with pytest.raises(ForbiddenError) as early:
        world.post(token, approval_id=approval)
    assert early.value.code == "INTENT_APPROVAL_REQUIRED" and early.value.details["status"] == "pending"
    approved = intents.approve(approval, notes="fine")
    assert (approved["status"], approved["notes"]) == ("approved", "fine")
    assert world.post(token, approval_id=approval).status == 200
    assert intents.get(approval)["used_at"]
    with pytest.raises(ForbiddenError) as again:
        world.post(token, approval_id=approval)
    assert again.value.details["status"] == "used"
    assert len(world.slack.requests) == 1
    with pytest.raises(StackError) as closed:
        intents.approve(approval)
    assert (closed.value.status_code, closed.value.code) == (409, "APPROVAL_CLOSED")

    world.mock.advance(15 * 60)
    assert intents.get(bare["approval_id"])["status"] == "expired"
    assert intents.list_pending()["items"] == []
    for call in (intents.get, intents.approve, intents.reject):
        with pytest.raises(NotFoundError):
            call("apr_unknown")


def test_the_human_of_the_mock(world: World) -> None:
    world.mock.control("policy", {"require_intent_approval": True})
    token = world.passport(world.agent().id).token
    approval = world.stack.intents.submit(intent(), token)["approval_id"]
    answer = world.mock.control("approve", {"approval_id": approval})
    assert answer == {"approval_id": approval, "status": "approved"}
    assert world.post(token, approval_id=approval).status == 200


@pytest.mark.parametrize("block_future", [False, True])
def test_reject(world: World, block_future: bool) -> None:
    agent = world.agent()
    token = world.passport(agent.id).token
    approval = world.stack.intents.submit(intent(), token)["approval_id"]
    rejected = world.stack.intents.reject(approval, notes="no", block_future=block_future)
    assert (rejected["status"], rejected["agent_suspended"]) == ("rejected", block_future)
    assert rejected["revocation"]["revoked_count"] == 1
    with pytest.raises(UnauthorizedError):
        world.post(token)
    if block_future:
        with pytest.raises(ForbiddenError):
            world.passport(agent.id)
    else:
        world.passport(agent.id)


def test_submit_and_wait(world: World) -> None:
    intents, token = world.stack.intents, world.passport(world.agent().id).token

    def person() -> None:
        while not intents.list_pending()["items"]:
            time.sleep(0.01)
        intents.approve(intents.list_pending()["items"][0]["id"])

    thread = threading.Thread(target=person)
    thread.start()
    outcome = intents.submit_and_wait(
        intent(),
        token,
        expires_in_seconds=60,
        skip_simulation=True,
        timeout_seconds=20,
        poll_interval_seconds=0.02,
    )
    thread.join()
    assert outcome["timed_out"] is False and outcome["final"]["status"] == "approved"
    assert outcome["final"]["id"] == outcome["initial"]["approval_id"]
    late = intents.submit_and_wait(intent(), token, timeout_seconds=0.05, poll_interval_seconds=0.02)
    assert late["timed_out"] is True and late["final"]["status"] == "pending"


def test_async(world: World, async_stack: Any) -> None:
    token = world.passport(world.agent().id).token

    async def run() -> None:
        async with async_stack() as client:
            outcome = await client.intents.submit_and_wait(
                intent(), token, timeout_seconds=0.05, poll_interval_seconds=0.02
            )
            assert outcome["timed_out"] is True
            assert (await client.intents.approve(outcome["initial"]["approval_id"]))["status"] == "approved"

    asyncio.run(run())
