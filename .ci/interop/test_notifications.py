"""Channels: which events are told to whom, and what becomes of a delivery that fails."""

from __future__ import annotations

from typing import Any

import pytest
from getstack import NotFoundError, StackError
from getstack.types import NotificationChannel

from conftest import World
from hooks import Hook, deliveries, outbox

OPERATOR_EMAIL = "operator@example.com"


def verified_hook(world: World, **filters: Any) -> tuple[Hook, NotificationChannel]:
    """A channel to a verified webhook."""
    hook = Hook(world)
    added = world.stack.delivery_methods.add("webhook", hook.url)
    hook.secret = added["webhook_secret"]
    channel = world.stack.notifications.create("webhook", added["id"], **filters)
    world.stack.notifications.send_verification_code(channel.id)
    world.stack.notifications.verify(channel.id, hook.received()[-1]["data"]["code"])
    world.slack.requests.clear()
    return hook, channel


def revoke(world: World, reason: str) -> str:
    passport = world.passport(world.agent("logged").id)
    world.stack.passports.revoke(passport.jti, reason=reason)
    jti: str = passport.jti
    return jti


def test_create_list_update_delete(world: World) -> None:
    notifications = world.stack.notifications
    own = notifications.create("email", OPERATOR_EMAIL)
    assert own.id.startswith("nch_")
    assert (own.channel_type, own.destination, own.events) == ("email", OPERATOR_EMAIL, [])
    assert (own.min_severity, own.active, own.verified) == ("warning", True, True)
    hook = notifications.create(
        channel_type="webhook",
        destination="https://hooks.example/in",
        events=["passport.revoked", "security_event"],
        min_severity="critical",
    )
    assert (hook.events, hook.min_severity, hook.verified) == (["passport.revoked", "security_event"], "critical", False)
    assert notifications.list() == [own, hook]
    changed = notifications.update(hook.id, events=[], min_severity="info", active=False)
    assert (changed["events"], changed["min_severity"], changed["active"]) == ([], "info", False)
    assert notifications.delete(own.id) == {"id": own.id, "deleted": True}
    assert [channel.id for channel in notifications.list()] == [hook.id]
    assert len(world.stack.delivery_methods.list()) == 2, "destinations stay"


def test_refusals(world: World) -> None:
    notifications = world.stack.notifications
    own = notifications.create("email", OPERATOR_EMAIL)
    for call in (
        lambda: notifications.create("email", OPERATOR_EMAIL, events=["passport.renewed"]),
        lambda: notifications.create("email", OPERATOR_EMAIL, min_severity="fatal"),
        lambda: notifications.create("fax", "12"),
        lambda: notifications.update(own.id, min_severity="fatal"),
        lambda: notifications.update(own.id, destination="x@example.com"),
    ):
        with pytest.raises(StackError) as refused:
            call()
        assert (refused.value.status_code, refused.value.code) == (400, "INVALID_REQUEST")
    for call in (
        lambda: notifications.create("email", "ndst_none"),
        lambda: notifications.update("nch_none", active=True),
        lambda: notifications.delete("nch_none"),
        lambda: notifications.send_verification_code("nch_none"),
        lambda: notifications.verify("nch_none", "123456"),
        lambda: notifications.test("nch_none"),
    ):
        with pytest.raises(NotFoundError):
            call()


def test_verify_by_sms(world: World) -> None:
    notifications = world.stack.notifications
    channel = notifications.create("sms", "+41791234567")
    revoke(world, "unseen")
    assert outbox(world) == [], "nothing goes to an address that is not verified"
    sent = notifications.send_verification_code(channel.id)
    assert sent["channel_type"] == "sms"
    assert notifications.verify(channel.id, code=outbox(world)[-1]["code"])["verified"] is True
    assert notifications.list()[0].verified
    assert notifications.test(channel.id)["delivered"] is True
    revoke(world, "seen")
    last = outbox(world)[-1]
    assert (last["to"], last["event"]["type"]) == ("+41791234567", "passport.revoked")
    assert "seen" in last["text"]


def test_webhook_is_told(world: World) -> None:
    hook, channel = verified_hook(world)
    assert world.stack.notifications.test(channel.id)["status_code"] == 200
    jti = revoke(world, "stolen")
    test, event = hook.received()
    assert test["type"] == "notification.test"
    assert (event["type"], event["severity"]) == ("passport.revoked", "warning")
    assert event["data"] == {"reason": "stolen", "revoked_count": 1, "cascaded_count": 0, "passports": [jti]}

    agent = world.agent("logged")
    token = world.passport(agent.id, services=("github",)).token
    with pytest.raises(StackError):
        world.post(token)
    event = hook.received()[-1]
    assert event["type"] == "security_event.credential_outside_scope"
    assert event["data"]["id"] == world.events(agent.id, "credential_outside_scope")[0]["id"]


def test_filters(world: World) -> None:
    hook, channel = verified_hook(world, events=["review"], min_severity="critical")
    revoke(world, "not asked for")
    assert hook.received() == []
    agent = world.agent("logged")
    passport = world.passport(agent.id)
    world.stack.passports.checkout(passport.jti, services_used=["elsewhere"], actions_count=1, summary="x")
    assert [event["type"] for event in hook.received()] == ["review.blocked"]
    world.stack.notifications.update(channel.id, events=["passport"], min_severity="warning")
    revoke(world, "asked for")
    assert [event["type"] for event in hook.received()] == ["review.blocked", "passport.revoked"]
    world.stack.notifications.update(channel.id, active=False)
    revoke(world, "silent")
    assert len(hook.received()) == 2


def test_retries_and_dead_letter(world: World) -> None:
    hook, _ = verified_hook(world)
    fault = {"method": "POST", "path": "upstream:hooks.example", "times": 2, "status": 503}
    world.mock.control("faults", fault)
    revoke(world, "in trouble")
    assert hook.received() == []
    assert deliveries(world)[0]["status"] == "waiting"
    world.mock.advance(11)
    assert hook.received() == [], "the second attempt failed too"
    world.mock.advance(41)
    assert [event["type"] for event in hook.received()] == ["passport.revoked"]
    delivered = deliveries(world)[0]
    assert delivered["status"] == "delivered"
    assert [attempt.get("status_code") for attempt in delivered["attempts"]] == [503, 503, 200]

    world.mock.control("faults", {**fault, "times": 6})
    revoke(world, "hopeless")
    world.mock.advance(3600)
    dead = deliveries(world)[-1]
    assert (dead["status"], len(dead["attempts"])) == ("dead", 6)
    assert "503" in dead["error"]
    assert len(hook.received()) == 1
    rows = world.stack.audit.list(limit=50)["entries"]
    assert [row["trace_id"] for row in rows if row["action"] == "notification.dead_letter"] == [dead["event"]["id"]]
