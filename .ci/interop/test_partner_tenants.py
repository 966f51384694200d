"""White-label tenants: isolated accounts on the partner's allowance."""

from __future__ import annotations

import hashlib
import hmac

import httpx
import pytest
from getstack import ForbiddenError, NotFoundError, Stack, StackError, UnauthorizedError

from conftest import POST_MESSAGE, SLACK_SCOPES, World


def test_tenant_life(world: World) -> None:
    tenants = world.stack.partner_tenants
    tenant = tenants.create("customer-1")
    assert (tenant["external_customer_id"], tenant["tier"], tenant["billing"]) == ("customer-1", "partner", "partner")
    tenant_id = tenant["operator_id"]
    with Stack(api_key=tenant["api_key"], base_url=world.mock.url) as account:
        agent = account.agents.register(name="bot")
        assert agent.operator_id == tenant_id
        with pytest.raises(NotFoundError):
            world.stack.agents.get(agent.id)
        connection = account.services.connect(service_id="slack", oauth_token="xoxb-tenant", scopes=SLACK_SCOPES)["id"]
        account.services.grant_agent_access(agent_id=agent.id, service_connection_id=connection, scopes=SLACK_SCOPES)

        def mission() -> str:
            opened: str = account.missions.open("Answer customers", agent_id=agent.id)["mission_id"]
            return opened

        passport = tenants.issue_passport(
            tenant_id,
            agent.id,
            ttl_seconds=600,
            services=[{"service_connection_id": connection, "scopes": ["chat:write"]}],
            named_intents=[],
            accountability_mode="enforced",
            mission_ids=[mission()],
        )
        account.proxy.post("slack", POST_MESSAGE, body={"text": "hello"}, passport_token=passport["token"])
        assert world.slack.requests[-1]["headers"]["authorization"] == "Bearer xoxb-tenant"

        minted = tenants.mint_outbound_passport(
            tenant_id,
            agent.id,
            scopes=["chat:write"],
            ttl_seconds=300,
            accountability_mode="enforced",
            named_intents=None,
            mission_id=mission(),
        )
        assert minted["header_value"] == minted["token"]
        assert minted["expires_at"]
        verified = world.stack.passports.verify(minted["token"])
        assert verified["valid"]
        assert verified["claims"]["jti"] == minted["passport_id"]

        webhook = tenants.create_inbound_webhook(
            tenant_id, "generic", agent.id, forward_url="https://app.example.com/", generic_config={"prefix": "v0="}
        )
        assert webhook["webhook_secret"]
        answer = tenants.set_inbound_webhook_signing_secret(
            tenant_id, webhook["id"], "the provider's own secret", downstream_signing_secret="a secret of my own"
        )
        assert answer == {"webhook_id": webhook["id"], "status": "configured"}
        world.mock.control("upstreams", {"host": "app.example.com", "url": world.slack.url})
        signed = {"X-Webhook-Signature": "v0=" + hmac.new(b"the provider's own secret", b"{}", hashlib.sha256).hexdigest()}
        sent = httpx.post(webhook["webhook_url"], content=b"{}", headers={"Content-Type": "application/json", **signed})
        assert (sent.status_code, sent.json()["status"]) == (200, "forwarded")

        got = tenants.get(tenant_id)
        assert got["usage"]["actions"] == 1
        assert tenants.list() == [got]
        assert "api_key" not in got

        ended = tenants.revoke(tenant_id)
        assert (ended["transitioned"], ended["webhooks_revoked"], ended["passports_revoked"]) == (True, 1, 2)
        again = tenants.revoke(tenant_id)
        assert (again["transitioned"], again["webhooks_revoked"], again["passports_revoked"]) == (False, 0, 0)
        with pytest.raises(UnauthorizedError):
            account.agents.list()


def test_refusals(world: World) -> None:
    tenants = world.stack.partner_tenants
    with pytest.raises(StackError) as tier:
        world.stack._client.post("/v1/partner/tenants", json={"tier": "studio"})
    assert (tier.value.status_code, tier.value.code) == (400, "TENANT_TIER_NOT_ALLOWED")
    tenant = tenants.create()
    world.mock.control("policy", {"tenant_limit": 1, "action_cap": 1})
    with pytest.raises(StackError) as limit:
        tenants.create()
    assert (limit.value.status_code, limit.value.code) == (409, "TENANT_LIMIT_REACHED")

    agent = world.agent()
    token = world.passport(agent.id).token
    world.post(token)
    with pytest.raises(StackError) as exhausted:
        world.post(token)
    assert (exhausted.value.status_code, exhausted.value.code) == (402, "ALLOWANCE_EXHAUSTED")

    with Stack(api_key=tenant["api_key"], base_url=world.mock.url) as account:
        with pytest.raises(ForbiddenError) as billed:
            account._client.post("/v1/billing/topup", json={"amount_cents": 1000})
        assert billed.value.code == "TENANT_BILLED_BY_PARTNER"
        world.mock.control("policy", {"partner_inactive": True})
        with pytest.raises(ForbiddenError) as inactive:
            account.agents.list()
        assert inactive.value.code == "BILLING_ACCOUNT_INACTIVE"
    for call in (lambda: tenants.get("op_none"), lambda: tenants.revoke("op_none")):
        with pytest.raises(NotFoundError):
            call()
