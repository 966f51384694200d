"""Destinations: addresses, their verification, secrets, and approvals where the policy demands them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from getstack import ForbiddenError, NotFoundError, StackError

from conftest import World
from hooks import Hook, outbox, signed_with

OPERATOR_EMAIL = "operator@example.com"


def refused(call: Callable[[], Any]) -> tuple[int, str]:
    with pytest.raises(StackError) as error:
        call()
    return error.value.status_code, error.value.code


def other(code: str) -> str:
    return f"{(int(code) + 1) % 1_000_000:06d}"


def test_add_and_list(world: World) -> None:
    methods = world.stack.delivery_methods
    own = methods.add("email", OPERATOR_EMAIL, label="on call")
    assert own["id"].startswith("ndst_")
    assert (own["channel_type"], own["verified"], own["webhook_secret"], own["label"]) == ("email", True, None, "on call")
    mail = methods.add(kind="email", destination="ada@example.com")
    phone = methods.add("sms", "+41791234567")
    hook = methods.add("webhook", "https://hooks.example/in")
    assert not any(d["verified"] for d in (mail, phone, hook))
    assert hook["webhook_secret"].startswith("whsec_")
    assert (mail["webhook_secret"], phone["webhook_secret"]) == (None, None)
    assert methods.list() == [own, mail, phone, {**hook, "webhook_secret": None}]
    assert refused(lambda: methods.add("webhook", "https://hooks.example/in")) == (409, "DESTINATION_EXISTS")
    for kind, address in (("email", "ada"), ("sms", "079"), ("webhook", "hooks.example"), ("fax", "+41791234567")):
        assert refused(lambda kind=kind, address=address: methods.add(kind, address)) == (400, "INVALID_REQUEST")
    assert refused(lambda: methods.add("email", "x@example.com", colour="red")) == (400, "INVALID_REQUEST")


def test_verify_by_message(world: World) -> None:
    methods = world.stack.delivery_methods
    mail = methods.add("email", "ada@example.com")["id"]
    assert refused(lambda: methods.test(mail)) == (409, "DESTINATION_NOT_VERIFIED")
    assert refused(lambda: methods.verify(mail, "123456")) == (410, "CODE_EXPIRED")
    sent = methods.send_verification_code(mail)
    assert (sent["destination_id"], sent["channel_type"], sent["sent"]) == (mail, "email", True)
    assert refused(lambda: methods.send_verification_code(mail)) == (429, "RATE_LIMITED")
    code = outbox(world)[-1]["code"]
    with pytest.raises(StackError) as wrong:
        methods.verify(mail, other(code))
    assert (wrong.value.status_code, wrong.value.code, wrong.value.details["attempts_left"]) == (400, "CODE_INCORRECT", 4)
    assert methods.verify(destination_id=mail, code=code)["verified"] is True
    assert refused(lambda: methods.send_verification_code(mail)) == (409, "DESTINATION_ALREADY_VERIFIED")
    assert methods.test(mail)["delivered"] is True
    assert outbox(world)[-1]["event"]["type"] == "notification.test"
    assert outbox(world)[-1]["to"] == "ada@example.com"

    phone = methods.add("sms", "+41791234567")["id"]
    methods.send_verification_code(phone)
    code = outbox(world)[-1]["code"]
    world.mock.advance(600)
    assert refused(lambda: methods.verify(phone, code)) == (410, "CODE_EXPIRED")


def test_webhook(world: World) -> None:
    methods, hook = world.stack.delivery_methods, Hook(world)
    added = methods.add("webhook", hook.url)
    hook.secret = added["webhook_secret"]
    methods.send_verification_code(added["id"])
    event = hook.received()[-1]
    assert (event["type"], event["severity"]) == ("notification.verification", "info")
    assert event["data"]["destination_id"] == added["id"]
    assert methods.verify(added["id"], event["data"]["code"])["verified"] is True
    done = methods.test(added["id"])
    assert (done["delivered"], done["status_code"]) == (True, 200)
    assert hook.received()[-1]["id"] == done["delivery_id"]

    old, hook.secret = hook.secret, methods.rotate_secret(added["id"])["webhook_secret"]
    assert hook.secret.startswith("whsec_") and hook.secret != old
    methods.test(added["id"])
    assert hook.check(world.slack.requests[-1])["type"] == "notification.test"
    assert not signed_with(old, world.slack.requests[-1])
    assert methods.delete(added["id"]) == {"id": added["id"], "deleted": True}
    assert methods.list() == []


def test_webhook_in_trouble(world: World) -> None:
    methods, hook = world.stack.delivery_methods, Hook(world, "/unavailable")
    added = methods.add("webhook", hook.url)["id"]
    assert refused(lambda: methods.send_verification_code(added)) == (502, "DELIVERY_FAILED")
    nowhere = methods.add("webhook", "http://127.0.0.1:1/in")["id"]
    assert refused(lambda: methods.send_verification_code(nowhere)) == (502, "DELIVERY_FAILED")
    own = methods.add("email", OPERATOR_EMAIL)["id"]
    assert refused(lambda: methods.rotate_secret(own)) == (400, "INVALID_REQUEST")


def test_delete_while_in_use(world: World) -> None:
    methods = world.stack.delivery_methods
    own = methods.add("email", OPERATOR_EMAIL)["id"]
    channel = world.stack.notifications.create("email", own)
    with pytest.raises(StackError) as in_use:
        methods.delete(own)
    assert (in_use.value.status_code, in_use.value.details["channels"]) == (409, [channel.id])
    world.stack.notifications.delete(channel.id)
    methods.delete(own)


def test_unknown(world: World) -> None:
    methods = world.stack.delivery_methods
    for call in (
        lambda: methods.delete("ndst_none"),
        lambda: methods.rotate_secret("ndst_none"),
        lambda: methods.send_verification_code("ndst_none"),
        lambda: methods.verify("ndst_none", "123456"),
        lambda: methods.test("ndst_none"),
    ):
        with pytest.raises(NotFoundError):
            call()


def test_governance(world: World) -> None:
    """Each action needs a human's approval of its own, where the policy says so."""
    methods, hook = world.stack.delivery_methods, Hook(world)

    def approved(call: Callable[[str | None], dict[str, Any]]) -> dict[str, Any]:
        with pytest.raises(ForbiddenError) as needed:
            call(None)
        assert needed.value.code == "GOVERNANCE_APPROVAL_REQUIRED"
        approval = needed.value.details["approval_id"]
        world.mock.approve(approval)
        answer = call(approval)
        with pytest.raises(StackError):
            call(approval)
        return answer

    assert world.mock.control("policy", {"require_destination_approval": True})["require_destination_approval"] is True
    added = approved(lambda a: methods.add("webhook", hook.url, governance_approval_id=a))
    one, hook.secret = added["id"], added["webhook_secret"]
    approved(lambda a: methods.send_verification_code(one, governance_approval_id=a))
    code = hook.received()[-1]["data"]["code"]
    with pytest.raises(ForbiddenError) as needed:
        methods.verify(one, code)
    world.mock.approve(needed.value.details["approval_id"])
    methods.verify(one, code, governance_approval_id=needed.value.details["approval_id"])
    approved(lambda a: methods.test(one, governance_approval_id=a))
    approved(lambda a: methods.rotate_secret(one, governance_approval_id=a))
    approved(lambda a: methods.delete(one, governance_approval_id=a))
