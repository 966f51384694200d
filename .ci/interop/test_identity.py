"""Identity: providers, verification, claims in passports, delegation, settings, and what services demand."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from getstack import ForbiddenError, NotFoundError, StackError, UnauthorizedError

from conftest import World

YEAR = 365 * 24 * 3600


def verify(world: World, provider: str, *claims: str) -> list[dict[str, Any]]:
    """A person is verified: the page's button stands in for them."""
    session = world.stack.identity.initiate_verification(provider, requested_claims=list(claims))
    assert session.status == "pending" and session.authorization_url
    httpx.post(session.authorization_url, timeout=10).raise_for_status()
    done: list[dict[str, Any]] = world.stack.identity.complete_verification(provider, session.session_ref)["claims"]
    return done


def carried(world: World, token: str) -> list[dict[str, Any]]:
    claims: list[dict[str, Any]] = world.stack.passports.verify(token)["claims"]["stk"]["identity_claims"]
    return claims


def issue_with(world: World, agent_id: str, claim_id: str) -> dict[str, Any]:
    """A passport that names its claims, which the SDK has no parameter for."""
    mission = world.stack.missions.open("Interop", agent_id=agent_id)["mission_id"]
    body = {
        "agent_id": agent_id,
        "mission_ids": [mission],
        "intent": {"summary": "Interop", "services": ["slack"]},
        "identity_claim_ids": [claim_id],
    }
    issued: dict[str, Any] = world.stack._client.post("/v1/passports/issue", json=body)
    return issued


def test_providers(world: World) -> None:
    providers = {provider.key: provider for provider in world.stack.identity.list_providers()}
    assert {"bankid_se", "stripe_identity", "login_gov", "id_me", "plaid"} <= set(providers)
    assert set(providers["bankid_se"].layers) == {"humanity", "identity"}
    assert providers["bankid_se"].assurance == "high"


def test_verification(world: World) -> None:
    identity = world.stack.identity
    session = identity.initiate_verification(
        "login_gov",
        requested_claims=["verified_human", "verified_identity"],
        return_url="https://app.example/back",
    )
    assert session.authorization_url.startswith(world.mock.url)
    with pytest.raises(StackError) as early:
        identity.complete_verification("login_gov", session.session_ref)
    assert (early.value.status_code, early.value.code) == (409, "VERIFICATION_PENDING")
    assert early.value.details["status"] == "pending"
    page = httpx.get(session.authorization_url, timeout=10)
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    with pytest.raises(StackError):
        identity.complete_verification("login_gov", session.session_ref)
    assert "https://app.example/back" in httpx.post(session.authorization_url, timeout=10).text

    done = identity.complete_verification("login_gov", session.session_ref)
    assert done["status"] == "verified"
    assert [(c["layer"], c["claim_type"], c["assurance_level"]) for c in done["claims"]] == [
        ("humanity", "verified_human", "substantial"),
        ("identity", "verified_identity", "high"),
    ]
    assert identity.complete_verification("login_gov", session.session_ref) == done
    claims = identity.list_claims()
    assert [claim.id for claim in claims] == [claim["id"] for claim in done["claims"]]
    assert all(claim.id.startswith("clm_") and claim.operator_id == world.mock.operator_id for claim in claims)
    with pytest.raises(NotFoundError):
        identity.initiate_verification("acme")
    with pytest.raises(NotFoundError):
        identity.complete_verification("login_gov", "idv_unknown")


def test_verification_expires(world: World) -> None:
    session = world.stack.identity.initiate_verification("plaid")
    world.mock.advance(15 * 60)
    assert httpx.post(session.authorization_url, timeout=10).status_code == 410
    with pytest.raises(StackError) as late:
        world.stack.identity.complete_verification("plaid", session.session_ref)
    assert (late.value.status_code, late.value.code) == (410, "VERIFICATION_EXPIRED")


def test_settings(world: World) -> None:
    identity = world.stack.identity
    begin = identity.get_settings()
    assert begin.identity_claim_ttl in ("30d", "90d", "180d", "1y")
    assert begin.identity_claim_inheritance == "auto" and begin.identity_auto_revoke is True
    changed = identity.update_settings(
        identity_claim_ttl="30d", identity_claim_inheritance="opt_in", identity_auto_revoke=False
    )
    assert (changed.identity_claim_ttl, changed.identity_claim_inheritance) == ("30d", "opt_in")
    assert changed.identity_auto_revoke is False
    assert identity.get_settings() == changed
    assert identity.update_settings(identity_claim_ttl="180d").identity_claim_inheritance == "opt_in"
    for fields in ({"identity_claim_ttl": "2y"}, {"identity_claim_inheritance": "never"}):
        with pytest.raises(StackError) as refused:
            identity.update_settings(**fields)
        assert (refused.value.status_code, refused.value.code) == (400, "INVALID_REQUEST")

    identity.update_settings(identity_claim_ttl="30d")
    verify(world, "plaid")
    world.mock.advance(30 * 24 * 3600 - 60)
    assert len(identity.list_claims()) == 1
    world.mock.advance(60)
    assert identity.list_claims() == []


def test_claims_in_passports(world: World) -> None:
    agent = world.agent("logged")
    human, person = verify(world, "bankid_se", "verified_human", "verified_identity")
    token = world.passport(agent.id).token
    entries = carried(world, token)
    assert [entry["claim_id"] for entry in entries] == [human["id"], person["id"]]
    assert set(entries[0]) == {
        "claim_id",
        "provider",
        "layer",
        "claim_type",
        "assurance_level",
        "verified_at",
        "expires_at",
    }
    assert entries[0]["expires_at"] - entries[0]["verified_at"] == YEAR

    world.stack.identity.update_settings(identity_claim_inheritance="opt_in")
    assert carried(world, world.passport(agent.id).token) == []
    named = issue_with(world, agent.id, person["id"])["token"]
    assert [entry["claim_id"] for entry in carried(world, named)] == [person["id"]]
    with pytest.raises(NotFoundError):
        issue_with(world, agent.id, "clm_unknown")


@pytest.mark.parametrize("auto_revoke", [True, False])
def test_revoke_claim(world: World, auto_revoke: bool) -> None:
    identity = world.stack.identity
    identity.update_settings(identity_auto_revoke=auto_revoke)
    before = world.passport(world.agent("logged").id).token
    claim = verify(world, "plaid", "verified_human")[0]
    token = world.passport(world.agent("logged").id).token
    revoked = identity.revoke_claim(claim["id"])
    assert (revoked["type"], revoked["revoked_count"]) == ("bulk_claim", 1 if auto_revoke else 0)
    if auto_revoke:
        with pytest.raises(UnauthorizedError) as dead:
            world.post(token)
        assert dead.value.code == "PASSPORT_REVOKED"
    else:
        assert world.post(token).status == 200
    assert world.post(before).status == 200
    assert identity.list_claims() == []
    assert identity.revoke_claim(claim["id"])["revoked_count"] == 0
    with pytest.raises(NotFoundError):
        identity.revoke_claim("clm_unknown")


def test_delegation(world: World) -> None:
    identity = world.stack.identity
    with pytest.raises(ForbiddenError) as nobody:
        identity.grant_delegation(["tax:file"])
    assert nobody.value.code == "IDENTITY_REQUIREMENTS_NOT_MET"
    person = verify(world, "bankid_se", "verified_identity")[0]
    claim = identity.grant_delegation(delegated_scopes=["tax:file"])
    assert (claim.layer, claim.assurance_level, claim.provider_key) == ("delegation", "high", "bankid_se")
    identity.revoke_claim(person["id"])
    assert identity.list_claims() == [], "it falls with the identity that it rests on"


def test_requirements(world: World) -> None:
    identity = world.stack.identity
    assert identity.get_service_requirements("slack") == []
    human = identity.set_service_requirement(
        "slack", layer="humanity", requires_claim="verified_human", minimum_assurance="substantial"
    )
    person = identity.set_service_requirement(
        "svc_slack",
        layer="identity",
        requires_claim="verified_identity",
        minimum_assurance="high",
        accepted_providers=["bankid_se"],
        required_scopes=None,
        requires_pii=True,
        lawful_basis="contract",
    )
    assert (human["required_scopes"], human["lawful_basis"], person["lawful_basis"]) == (None, None, "contract")
    assert identity.get_service_requirements("slack") == [human, person]
    identity.delete_service_requirement("slack", human["id"])
    assert identity.get_service_requirements("slack") == [person]
    with pytest.raises(NotFoundError):
        identity.delete_service_requirement("slack", human["id"])
    replaced = identity.replace_service_requirement(
        "slack",
        {
            "layer": "delegation",
            "requires_claim": "delegation",
            "minimum_assurance": "low",
            "required_scopes": ["tax:file"],
        },
    )
    assert [r["layer"] for r in replaced["requirements"]] == ["delegation"]
    assert identity.replace_service_requirement("slack", None)["requirements"] == []
    with pytest.raises(NotFoundError):
        identity.get_service_requirements("no such/service")


@pytest.mark.parametrize("missing", ["requires_pii", "lawful_basis"])
def test_an_identity_requirement_says_why(world: World, missing: str) -> None:
    fields = {
        "layer": "identity",
        "requires_claim": "verified_identity",
        "minimum_assurance": "high",
        "requires_pii": True,
        "lawful_basis": "contract",
    }
    del fields[missing]
    with pytest.raises(StackError) as refused:
        world.stack.identity.set_service_requirement("slack", **fields)
    assert (refused.value.status_code, refused.value.code) == (400, "INVALID_REQUEST")
    assert refused.value.details["field"] == f"body.{missing}"


def test_requirements_on_the_proxy(world: World) -> None:
    identity = world.stack.identity
    agent = world.agent("enforced")
    identity.set_service_requirement(
        "slack", layer="humanity", requires_claim="verified_human", minimum_assurance="high"
    )
    token = world.passport(agent.id).token
    with pytest.raises(ForbiddenError) as unmet:
        world.post(token)
    assert unmet.value.code == "IDENTITY_REQUIREMENTS_NOT_MET"
    assert [r["requires_claim"] for r in unmet.value.details["unmet"]] == ["verified_human"]
    assert world.slack.requests == []
    verify(world, "id_me", "verified_human")
    with pytest.raises(ForbiddenError):
        world.post(world.passport(agent.id).token)
    verify(world, "plaid", "verified_human")
    with pytest.raises(ForbiddenError):
        world.post(token)  # which was issued before
    assert world.post(world.passport(agent.id).token).status == 200
    world.blank(agent.id)
