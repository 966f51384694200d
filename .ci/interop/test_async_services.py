"""AsyncStack, service by service: what is made, read, listed and ended, and what waits or streams."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from getstack import AsyncStack, ForbiddenError, NotFoundError, StackError

from conftest import POST_MESSAGE, SLACK_SCOPES, SLACK_TOKEN, World
from hooks import Hook, outbox
from test_authority import b64url, decide, key
from test_dropoffs import PAYLOAD, SCHEMA
from test_fleets import Fleets
from test_intents import intent
from test_llm import BODY, PROVIDERS, LLM
from test_skills import TEXT, publish, top_up

Run = Callable[[Callable[[AsyncStack], Coroutine[Any, Any, None]]], None]


@pytest.fixture
def run(async_stack: Any) -> Run:
    """Runs a coroutine function with an AsyncStack of its own."""

    def runner(body: Callable[[AsyncStack], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            async with async_stack() as stack:
                await body(stack)

        asyncio.run(main())

    return runner


def test_agents_and_services(world: World, run: Run) -> None:
    async def body(stack: AsyncStack) -> None:
        agent = await stack.agents.register("async-one", description="first")
        assert [a.id for a in await stack.agents.list()] == [agent.id]
        assert (await stack.agents.update(agent.id, description="second")).description == "second"
        await stack.agents.suspend(agent.id)
        assert (await stack.agents.get(agent.id)).status == "suspended"
        await stack.agents.activate(agent.id)

        assert "slack" in {entry["provider"] for entry in await stack.services.list_available()}
        wiki = await stack.services.connect_custom(name="wiki", credential="wiki-secret-0123456789", scopes=["use"])
        assert (await stack.services.verify(wiki["id"]))["verified"] is True
        await stack.services.grant_agent_access(agent.id, wiki["id"], ["use"])
        permissions = await stack.services.get_agent_permissions(agent.id)
        assert [g["service_connection_id"] for g in permissions["grants"]] == [wiki["id"]]
        assert (await stack.credentials.get_by_connection(wiki["id"])).credential == "wiki-secret-0123456789"
        await stack.services.disconnect(wiki["id"])
        assert (await stack.services.get_agent_permissions(agent.id))["grants"] == []
        await stack.agents.delete(agent.id)
        with pytest.raises(NotFoundError):
            await stack.credentials.get("wiki")

    run(body)


def test_passports_missions_and_proxy(world: World, run: Run) -> None:
    agent = world.agent("logged")

    async def body(stack: AsyncStack) -> None:
        started = await stack.missions.start(
            agent_id=agent.id,
            mission={"intent_summary": "Answer"},
            passport={"intent": {"summary": "Answer", "services": ["slack"]}},
        )
        mission, token = started["mission_id"], started["passport"]["token"]
        assert (await stack.passports.verify(token))["valid"] is True
        assert [p["jti"] for p in await stack.passports.list_active()] == [started["passport"]["jti"]]
        answer = await stack.proxy.post("slack", POST_MESSAGE, body={"text": "hello"}, passport_token=token)
        assert answer.json()["ok"] is True
        assert (await stack.proxy.request("slack", POST_MESSAGE, "PUT", body={}, passport_token=token)).ok()
        assert (await stack.proxy.usage())["used"] == 2
        renewed = await stack.missions.renew(mission)
        assert renewed["mission_id"] == mission
        jti = renewed["passport"]["jti"]
        await stack.passports.checkpoint(jti, services_used=["slack"], actions_count=2)
        done = await stack.passports.checkout(jti, services_used=["slack"], actions_count=2)
        assert done.review_status in ("clean", "flagged")
        ended = await stack.missions.complete(mission, output={"done": True})
        assert ended["transitioned"] is True
        assert mission in [m["mission_id"] for m in (await stack.missions.list())["items"]]
        reviews = await stack.missions.list_operator_reviews(mission)
        envelope = await stack.missions.download_operator_review(mission, reviews["items"][0]["claim_id"])
        assert isinstance(envelope, bytes) and envelope

        other = await stack.missions.open("Again", agent_id=agent.id)
        issued = await stack.passports.issue(
            agent.id, intent="Again", services=["slack"], mission_ids=[other["mission_id"]]
        )
        await stack.passports.revoke(issued.jti, reason="enough")
        assert (await stack.passports.verify(issued.token))["valid"] is False
        await stack.missions.revoke(other["mission_id"], reason="operator_initiated_clean")
        assert (await stack.missions.get(other["mission_id"]))["status"] == "revoked"
        log = await stack.audit.list(agent_id=agent.id)
        assert {"mission.open", "passport.issue", "credential.proxy"} <= {entry["action"] for entry in log["entries"]}

    run(body)
    assert len(world.slack.requests) == 2


def test_dropoffs_and_reviews(world: World, run: Run) -> None:
    producer, consumer = world.agent("logged"), world.agent("logged")

    async def body(stack: AsyncStack) -> None:
        created = await stack.dropoffs.create(from_agent_id=producer.id, to_agent_id=consumer.id, schema=SCHEMA)
        dropoff = created["id"]
        assert [d["id"] for d in await stack.dropoffs.list()] == [dropoff]
        await stack.dropoffs.deposit(dropoff, data=PAYLOAD, agent_id=producer.id)
        assert (await stack.dropoffs.get(dropoff))["status"] == "deposited"
        assert (await stack.dropoffs.collect(dropoff, agent_id=consumer.id))["payload"] == PAYLOAD

        passport = world.passport(producer.id)
        world.post(passport.token)
        await stack.passports.checkpoint(passport.jti, services_used=["github"], actions_count=0)
        checkout = await stack.passports.checkout(passport.jti, services_used=["slack"], actions_count=0)
        assert [item.checkout_id for item in (await stack.reviews.list(status="blocked")).items] == [checkout.checkout_id]
        decided = await stack.reviews.decide(checkout.checkout_id, "blocked", block_future=True)
        assert decided.passport_blocked is True
        with pytest.raises(ForbiddenError):
            await stack.agents.unblock(producer.id)
        event = (await stack.security_events.list(agent_id=producer.id))["events"][0]
        assert (await stack.security_events.get(event["id"]))["id"] == event["id"]

    run(body)


def test_identity_intents_and_scan(world: World, run: Run) -> None:
    agent = world.agent()
    token = world.passport(agent.id).token

    async def body(stack: AsyncStack) -> None:
        assert "plaid" in {provider.key for provider in await stack.identity.list_providers()}
        assert (await stack.identity.get_settings()).identity_auto_revoke is True
        session = await stack.identity.initiate_verification("plaid")
        httpx.post(session.authorization_url, timeout=10).raise_for_status()
        done = await stack.identity.complete_verification("plaid", session.session_ref)
        assert [claim.id for claim in await stack.identity.list_claims()] == [claim["id"] for claim in done["claims"]]
        revoked = await stack.identity.revoke_claim(done["claims"][0]["id"])
        assert revoked["claim_id"] == done["claims"][0]["id"]

        world.mock.control("policy", {"require_intent_approval": True})
        assert (await stack.intents.simulate(intent(), token, persist=False))["simulated_at"]
        submitted = await stack.intents.submit(intent(), token)
        assert [row["id"] for row in (await stack.intents.list_pending())["items"]] == [submitted["approval_id"]]
        approved = await stack.intents.approve(submitted["approval_id"])
        assert approved["status"] == "approved"
        assert (await stack.intents.get(submitted["approval_id"]))["status"] == "approved"
        answer = await stack.proxy.request(
            "slack",
            POST_MESSAGE,
            "POST",
            body={"channel": "#support", "text": "hello"},
            passport_token=token,
            approval_id=submitted["approval_id"],
        )
        assert answer.status == 200
        before = (await stack.scan.usage())["used"]
        assert (await stack.scan.scan("Lunch?"))["verdict"] == "clean"
        assert (await stack.scan.usage())["used"] == before + 1

    run(body)


def test_settings(world: World, run: Run) -> None:
    async def body(stack: AsyncStack) -> None:
        assert (await stack.pii_config.update(threshold=0.2))["configured"] is True
        assert (await stack.pii_config.get())["threshold"] == 0.2
        with pytest.raises(ForbiddenError):
            await stack.pii_config.reset()
        await stack.detector_config.upsert("scope_drift", severity_overrides={"warning": "critical"})
        assert (await stack.detector_config.get("scope_drift"))["enabled"] is True
        assert [row["detector_key"] for row in (await stack.detector_config.list())["configs"]] == ["scope_drift"]
        member = await stack.team.invite("ada@example.com", "Ada", role="readonly")
        assert (await stack.team.update(member["id"], role="standard"))["role"] == "standard"
        assert [m["id"] for m in await stack.team.list()] == [member["id"]]
        assert (await stack.team.revoke(member["id"]))["status"] == "revoked"

    run(body)


def test_notifications(world: World, run: Run) -> None:
    hook = Hook(world)

    async def body(stack: AsyncStack) -> None:
        added = await stack.delivery_methods.add("webhook", hook.url)
        hook.secret = added["webhook_secret"]
        await stack.delivery_methods.send_verification_code(added["id"])
        code = hook.received()[-1]["data"]["code"]
        assert (await stack.delivery_methods.verify(added["id"], code))["verified"] is True
        assert (await stack.delivery_methods.test(added["id"]))["delivered"] is True
        assert [d["id"] for d in await stack.delivery_methods.list()] == [added["id"]]
        hook.secret = (await stack.delivery_methods.rotate_secret(added["id"]))["webhook_secret"]

        channel = await stack.notifications.create("webhook", added["id"], min_severity="info")
        assert [c.id for c in await stack.notifications.list()] == [channel.id]
        assert (await stack.notifications.test(channel.id))["delivered"] is True
        assert (await stack.notifications.update(channel.id, active=False))["active"] is False
        assert (await stack.notifications.delete(channel.id))["deleted"] is True
        phone = await stack.notifications.create("sms", "+41791234567")
        await stack.notifications.send_verification_code(phone.id)
        assert (await stack.notifications.verify(phone.id, outbox(world)[-1]["code"]))["verified"] is True
        assert (await stack.delivery_methods.delete(added["id"]))["deleted"] is True

    run(body)


def test_skills(world: World, run: Run) -> None:
    worker = world.agent("logged")

    async def body(stack: AsyncStack) -> None:
        sealed = publish(world)
        open_skill = await stack.skills.publish(
            name="by-hand", description="Done by hand", agent_id=worker.id, price_per_invocation=30, output_schema=TEXT
        )
        assert [s.id for s in await stack.skills.browse(query="hand")] == [open_skill.id]
        assert (await stack.skills.get(open_skill.id)).execution_mode == "open"
        assert {s.id for s in await stack.skills.list_owned()} == {sealed.id, open_skill.id}
        assert (await stack.skills.check_trust(sealed.id))["satisfied"] is True
        done = await stack.skills.invoke(sealed.id, input={"text": "hello"}, idempotency_key="once")
        assert (done.status, done.output) == ("completed", {"text": "HELLO"})
        top_up(world, 1000)
        waiting = await stack.skills.invoke(open_skill.id, input={"text": "hello"})

        async def work() -> None:
            (pending,) = await stack.skills.list_pending_invocations()
            await stack.skills.claim_invocation(pending.id)
            await stack.skills.complete_invocation(pending.id, {"text": "by hand"})

        polled, _ = await asyncio.gather(stack.skills.poll(waiting.id, interval_seconds=0.05, timeout_seconds=10), work())
        assert polled.output == {"text": "by hand"}
        assert {i.id for i in await stack.skills.list_invocations()} == {done.id, waiting.id}
        failing = await stack.skills.invoke(open_skill.id, input={})
        await stack.skills.fail_invocation(failing.id, code="BUSY", message="no time")
        assert (await stack.skills.get_invocation(failing.id)).status == "failed"
        assert (await stack.skills.suspend(open_skill.id)).status == "suspended"
        request = await stack.skills.post_request(description="Make a text louder", tags=["text"])
        assert [r.id for r in await stack.skills.list_requests()] == [request.id]
        matches = (await stack.skills.get_request_matches(request.id))["matches"]
        assert [m["skill_id"] for m in matches] == [sealed.id]

    run(body)


def test_llm(world: World, run: Run) -> None:
    llm = LLM(world)
    paths = {provider: path for provider, (_, path) in PROVIDERS.items()}

    async def body(stack: AsyncStack) -> None:
        session = await stack.issue_passport(
            agent_id=llm.agent.id, mission_ids=[llm.mission], intent={"summary": "Interop", "services": list(PROVIDERS)}
        )
        for provider, create in (
            ("anthropic", stack.llm.anthropic.messages.create),
            ("openai", stack.llm.openai.chat.completions.create),
            ("openrouter", stack.llm.openrouter.chat.completions.create),
        ):
            assert await create(body=BODY, passport=session) == world.slack.llm_answer(paths[provider])
            events = [event async for event in await create(body=BODY, passport=session, stream=True)]
            assert events == world.slack.llm_events(paths[provider])
        rows = (await stack.llm.usage.list(limit=10))["items"]
        assert [row["complete"] for row in rows] == [True] * 6
        assert (await stack.llm.usage.summary(provider="openai"))["totals"]["calls"] == 2

    run(body)


def test_fleets(world: World, run: Run) -> None:
    fleets = Fleets(world)
    policy = fleets.activate()

    async def body(stack: AsyncStack) -> None:
        assert (await stack.fleets.list())[0]["id"] == (await stack.fleets.get(policy["id"]))["id"] == policy["id"]
        challenge = await stack.fleets.enrollment_challenge(policy["id"])
        member = await stack.fleets.enroll(policy["id"], fleets.answer(challenge))
        assert await stack.fleets.membership(member["agent_id"]) == member
        assert await stack.fleets.members(policy["id"]) == [member]
        assert (await stack.fleets.session(policy["id"]))["fleet_policy_id"] == policy["id"]
        request = fleets.request(policy["id"], member["agent_id"])
        started = await stack.missions.start(request)
        assert await stack.missions.start(request) == started
        revoked = await stack.fleets.revoke_member(policy["id"], member["agent_id"])
        assert revoked["revoked_missions"] == 1
        assert (await stack.fleets.revoke(policy["id"]))["status"] == "revoked"

    run(body)


def test_authority(world: World, run: Run) -> None:
    agent, private = world.agent("logged"), Ed25519PrivateKey.generate()

    async def body(stack: AsyncStack) -> None:
        api = stack.authority
        principal = await api.create_principal(idempotency_key=key(), kind="person", display_name="The principal")
        assert [p["id"] for p in await api.list_principals()] == [principal["id"]]
        proof = await api.import_proof(
            idempotency_key=key(), principal_id=principal["id"], kind="consent", content="I agree"
        )
        assert (await api.get_proof(proof["id"], version=1))["status"] == "active"
        profile = await api.create_profile_version(idempotency_key=key(), profile_kind="receiver", name="Usual", rules={})
        await api.activate_profile_version(profile["id"], profile_kind="receiver", idempotency_key=key())
        receiver = await api.create_receiver(idempotency_key=key(), name="Slack", hosts=["slack.com"])
        added = await api.add_receiver_key(
            receiver["id"], idempotency_key=key(), public_key=b64url(private.public_key().public_bytes_raw())
        )
        challenge = await api.create_receiver_verification_challenge(receiver["id"], idempotency_key=key())
        answer = {"key_id": added["id"], "signature": b64url(private.sign(challenge["challenge"].encode()))}
        httpx.post(challenge["response_url"], json=answer, timeout=10).raise_for_status()
        assert (await api.verify_receiver(receiver["id"], idempotency_key=key()))["status"] == "verified"
        binding = await api.create_binding(
            idempotency_key=key(),
            principal_id=principal["id"],
            agent_id=agent.id,
            receiver_id=receiver["id"],
            services=["slack"],
            proof_ids=[proof["id"]],
            purpose="Answer tickets",
        )
        (asked,) = await api.create_approval_requests(binding["id"], idempotency_key=key(), approvers=["boss"])
        decide(asked["approval_url"])
        assert (await api.activate_binding(binding["id"], idempotency_key=key()))["status"] == "active"
        started = await stack.missions.start(
            agent_id=agent.id,
            mission={"intent_summary": "Answer", "authority_binding_ids": [binding["id"]]},
            passport={"intent": {"summary": "Answer", "services": ["slack"]}},
        )
        await stack.proxy.post("slack", POST_MESSAGE, body={}, passport_token=started["passport"]["token"])
        (use,) = await api.list_uses()
        assert (use["binding_id"], (await api.get_use(use["id"]))["outcome"]) == (binding["id"], "allowed")
        assert [p["use_id"] for p in await api.list_presentations()] == [use["id"]]
        assert (await api.revoke_binding(binding["id"], reason_code="done", idempotency_key=key()))["status"] == "revoked"
        assert (await api.erase_binding(binding["id"], idempotency_key=key()))["object"] == "binding"
        with pytest.raises(StackError) as erased:
            await api.get_binding(binding["id"])
        assert erased.value.status_code == 410

    run(body)


def test_evidence_packs(world: World, run: Run, tmp_path: Path) -> None:
    agent = world.agent("logged")
    mission = world.stack.missions.open("Interop", agent_id=agent.id)["mission_id"]

    async def body(stack: AsyncStack) -> None:
        pack = await stack.evidence_packs.export(
            scope_kind="mission", scope_ref=mission, output_path=str(tmp_path / "pack.json")
        )
        assert (await stack.evidence_packs.get(pack["pack_id"]))["envelope_cose"]
        assert await stack.evidence_packs.download(pack["pack_id"])
        assert [p["pack_id"] for p in (await stack.evidence_packs.list())["items"]] == [pack["pack_id"]]

    run(body)


def test_inbound_webhooks(world: World, run: Run) -> None:
    agent = world.agent(granted=False).id

    async def body(stack: AsyncStack) -> None:
        hook = await stack.inbound_webhooks.create("generic", agent, forward_url="https://app.example.com/hook")
        assert hook["incoming_signing_secret"]
        assert [w["id"] for w in await stack.inbound_webhooks.list()] == [hook["id"]]
        changed = await stack.inbound_webhooks.set_provider_signing_secret(hook["id"], "the provider's own secret")
        assert changed["downstream_signing_secret"]
        assert (await stack.inbound_webhooks.revoke(hook["id"]))["status"] == "revoked"
        assert (await stack.inbound_webhooks.get(hook["id"]))["status"] == "revoked"

    run(body)


def test_partners(world: World, run: Run) -> None:
    async def body(stack: AsyncStack) -> None:
        tenant = await stack.partner_tenants.create("customer-1")
        tenant_id = tenant["operator_id"]
        assert (await stack.partner_tenants.get(tenant_id))["external_customer_id"] == "customer-1"
        assert [t["operator_id"] for t in await stack.partner_tenants.list()] == [tenant_id]
        async with AsyncStack(api_key=tenant["api_key"], base_url=world.mock.url) as account:
            agent = await account.agents.register("bot")
            await account.services.connect("slack", SLACK_TOKEN, SLACK_SCOPES)
            mission = await account.missions.open("Answer customers", agent_id=agent.id)
            minted = await stack.partner_tenants.mint_outbound_passport(
                tenant_id, agent.id, accountability_mode="enforced", mission_id=mission["mission_id"]
            )
            assert minted["header_value"] == minted["token"]
        assert (await stack.partner_tenants.revoke(tenant_id))["transitioned"] is True

        granted = await stack.partner_connect.connect("ada@example.com", providers=["slack"])
        assert [c["grant_id"] for c in await stack.partner_connect.list_connections()] == [granted["grant_id"]]
        assert (await stack.partner_connect.get_connection(granted["grant_id"]))["status"] == "active"
        assert (await stack.partner_connect.rotate_token(granted["grant_id"]))["grant_token"] != granted["grant_token"]
        assert (await stack.partner_connect.revoke_connection(granted["grant_id"]))["status"] == "revoked"

    run(body)
