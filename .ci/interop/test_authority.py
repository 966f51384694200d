"""Authority: principals, proofs, bindings and their approvals, receivers, profiles, and what proxied calls leave behind."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from getstack import ForbiddenError, NotFoundError, StackError, verify_passport_header

from conftest import World

_keys = itertools.count()


def key() -> str:
    return f"interop-{next(_keys)}"


def b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decide(url: str, answer: str = "approve") -> None:
    """The button on the page stands in for the person."""
    httpx.post(f"{url}/{answer}", timeout=10).raise_for_status()


def refused(status: int, code: str, call: Callable[[], Any]) -> dict[str, Any]:
    with pytest.raises(StackError) as caught:
        call()
    assert (caught.value.status_code, caught.value.code) == (status, code), caught.value
    details: dict[str, Any] = caught.value.details
    return details


@dataclass
class Basis:
    """What a binding needs."""

    world: World
    agent_id: str
    principal: dict[str, Any]
    proof: dict[str, Any]
    receiver: dict[str, Any]
    private: Ed25519PrivateKey

    def draft(self, **changes: Any) -> dict[str, Any]:
        fields = {
            "principal_id": self.principal["id"],
            "agent_id": self.agent_id,
            "receiver_id": self.receiver["id"],
            "services": ["slack"],
            "proof_ids": [self.proof["id"]],
            "purpose": "Answer tickets",
        }
        authority = self.world.stack.authority
        return authority.create_binding(idempotency_key=key(), **{**fields, **changes})

    def active(self, **changes: Any) -> dict[str, Any]:
        binding_id = self.draft(**changes)["id"]
        authority = self.world.stack.authority
        requests = authority.create_approval_requests(
            binding_id, idempotency_key=key(), approvers=["boss"], message="Please"
        )
        decide(requests[0]["approval_url"])
        return authority.activate_binding(binding_id, idempotency_key=key())


@pytest.fixture
def basis(world: World) -> Basis:
    authority = world.stack.authority
    principal = authority.create_principal(
        idempotency_key=key(), kind="person", display_name="The principal", external_ref="crm-1"
    )
    proof = authority.import_proof(
        idempotency_key=key(),
        principal_id=principal["id"],
        kind="consent",
        content="I agree",
        expires_at="2099-01-01T00:00:00Z",
    )
    profile = authority.create_profile_version(
        idempotency_key=key(), profile_kind="receiver", name="Usual", rules={"max_lifetime_seconds": 86_400}
    )
    assert (profile["status"], profile["version"]) == ("draft", 1)
    profile = authority.activate_profile_version(profile["id"], profile_kind="receiver", idempotency_key=key())
    assert profile["status"] == "active"
    receiver = authority.create_receiver(idempotency_key=key(), name="Slack", hosts=["slack.com"])
    assert (receiver["status"], receiver["keys"]) == ("unverified", [])
    private = Ed25519PrivateKey.generate()
    verify(world, receiver["id"], private)
    return Basis(world, world.agent("logged").id, principal, proof, authority.get_receiver(receiver["id"]), private)


def verify(world: World, receiver_id: str, private: Ed25519PrivateKey) -> dict[str, Any]:
    """The receiver shows that it holds a key."""
    authority = world.stack.authority
    added = authority.add_receiver_key(
        receiver_id, idempotency_key=key(), public_key=b64url(private.public_key().public_bytes_raw())
    )
    challenge = authority.create_receiver_verification_challenge(receiver_id, idempotency_key=key())
    details = refused(409, "AUTHORITY_STATE", lambda: authority.verify_receiver(receiver_id, idempotency_key=key()))
    assert details["status"] == "unanswered"
    answer = {"key_id": added["id"], "signature": b64url(private.sign(challenge["challenge"].encode()))}
    httpx.post(challenge["response_url"], json=answer, timeout=10).raise_for_status()
    receiver: dict[str, Any] = authority.verify_receiver(receiver_id, idempotency_key=key())
    assert (receiver["status"], receiver["verified_key_id"]) == ("verified", added["id"])
    return receiver


def test_principals(world: World) -> None:
    authority = world.stack.authority
    fields = {"kind": "organization", "display_name": "Acme"}
    made = authority.create_principal(idempotency_key="one", **fields)
    assert authority.create_principal(idempotency_key="one", **fields) == made
    refused(
        409,
        "IDEMPOTENCY_KEY_REUSED",
        lambda: authority.create_principal(idempotency_key="one", kind="person", display_name="B"),
    )
    refused(400, "INVALID_REQUEST", lambda: authority.create_principal(idempotency_key="", **fields))
    dog = {"kind": "dog", "display_name": "x"}
    details = refused(400, "INVALID_REQUEST", lambda: authority.create_principal(idempotency_key=key(), **dog))
    assert details["field"] == "body.kind"
    refused(400, "INVALID_REQUEST", lambda: authority.create_principal(idempotency_key=key(), surprise=1, **fields))
    assert authority.list_principals() == [made]
    assert authority.get_principal(made["id"]) == made
    archived = authority.archive_principal(made["id"], reason_code="left", idempotency_key=key())
    assert (archived["status"], archived["reason_code"]) == ("archived", "left")
    refused(
        409,
        "AUTHORITY_STATE",
        lambda: authority.archive_principal(made["id"], reason_code="left", idempotency_key=key()),
    )
    tombstone = authority.erase_principal(made["id"], idempotency_key=key())
    assert (tombstone["id"], tombstone["object"]) == (made["id"], "principal")
    assert refused(410, "AUTHORITY_ERASED", lambda: authority.get_principal(made["id"]))["tombstone"] == tombstone
    assert authority.list_principals() == []
    with pytest.raises(NotFoundError):
        authority.get_principal("prn_unknown")


def test_a_key_is_mandatory(world: World) -> None:
    body = {"kind": "person", "display_name": "x"}
    details = refused(400, "INVALID_REQUEST", lambda: world.stack._client.post("/v1/authority/principals", json=body))
    assert details["field"] == "header Idempotency-Key"


def test_enterprise_oidc(basis: Basis) -> None:
    authority = basis.world.stack.authority
    request = authority.create_enterprise_oidc_request(
        idempotency_key=key(), principal_id=basis.principal["id"], purpose="Sign off"
    )
    assert request["status"] == "pending" and request["approval_url"].startswith(basis.world.mock.url)
    assert len(authority.list_proofs()) == 1, "it grants nothing by itself"
    page = httpx.get(request["approval_url"], timeout=10)
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    decide(request["approval_url"])
    done = authority.get_enterprise_oidc_request(request["id"])
    assert done["status"] == "approved"
    proof = authority.get_proof(done["proof_id"])
    assert (proof["kind"], proof["source"]) == ("enterprise_oidc", "enterprise_oidc_request")


def test_proofs(basis: Basis) -> None:
    authority, proof = basis.world.stack.authority, basis.proof
    assert "content" not in proof and proof["digest"].startswith("sha256:")
    second = authority.import_proof(
        idempotency_key=key(), principal_id=basis.principal["id"], kind="consent", content="Again", proof_id=proof["id"]
    )
    assert (second["id"], second["version"]) == (proof["id"], 2)
    assert authority.get_proof(proof["id"]) == second
    assert authority.get_proof(proof["id"], version=1)["status"] == "superseded"
    session = authority.create_proof_collection_session(
        idempotency_key=key(),
        principal_id=basis.principal["id"],
        kind="mandate",
        purpose="May file taxes",
        return_url="https://app.example/back",
    )
    decide(session["collection_url"])
    done = authority.get_proof_collection_session(session["id"])
    assert done["status"] == "approved"
    assert [p["id"] for p in authority.list_proofs()] == [done["proof_id"], proof["id"]]
    refused(409, "AUTHORITY_STATE", lambda: authority.erase_proof(proof["id"], idempotency_key=key()))
    revoked = authority.revoke_proof(proof["id"], reason_code="withdrawn", idempotency_key=key())
    assert (revoked["status"], revoked["reason_code"]) == ("revoked", "withdrawn")
    erased = authority.erase_proof(proof["id"], idempotency_key=key())
    assert erased["status"] == "erased" and "digest" not in erased


def test_binding(basis: Basis) -> None:
    authority = basis.world.stack.authority
    binding = basis.draft(max_uses=3, may_delegate=True)
    assert (binding["status"], binding["version"]) == ("draft", 1)

    def activate() -> Any:
        return authority.activate_binding(binding["id"], idempotency_key=key())

    assert refused(409, "AUTHORITY_STATE", activate)["status"] == "draft"
    requests = authority.create_approval_requests(binding["id"], idempotency_key=key(), approvers=["a", "b"])
    assert [r["status"] for r in requests] == ["pending", "pending"]
    assert refused(409, "AUTHORITY_STATE", activate)["status"] == "pending_approval"
    decide(requests[0]["approval_url"])
    assert [r["status"] for r in authority.list_approval_requests(binding["id"])] == ["approved", "cancelled"]
    active = authority.activate_binding(binding["id"], idempotency_key=key(), version=1)
    assert active["status"] == "active" and active["claim_id"]
    assert authority.get_binding(binding["id"]) == active
    assert authority.list_bindings() == [active]

    next_version = basis.draft(binding_id=binding["id"])
    assert next_version["version"] == 2
    assert authority.get_binding(binding["id"], version=2)["status"] == "draft"
    assert authority.get_binding(binding["id"])["version"] == 1

    child = basis.world.agent("logged").id
    lent = authority.delegate_binding(binding["id"], idempotency_key=key(), agent_id=child, max_uses=1)
    assert (lent["status"], lent["parent_binding_id"]) == ("active", binding["id"])
    refused(409, "AUTHORITY_STATE", lambda: authority.erase_binding(binding["id"], idempotency_key=key()))
    revoked = authority.revoke_binding(binding["id"], reason_code="done", idempotency_key=key())
    assert revoked["status"] == "revoked"
    assert authority.get_binding(lent["id"])["status"] == "revoked"
    tombstone = authority.erase_binding(binding["id"], idempotency_key=key())
    assert refused(410, "AUTHORITY_ERASED", lambda: authority.get_binding(binding["id"]))["tombstone"] == tombstone
    rejected = basis.draft()
    request = authority.create_approval_requests(rejected["id"], idempotency_key=key(), approvers=["a"])[0]
    decide(request["approval_url"], "reject")
    assert authority.get_binding(rejected["id"])["status"] == "rejected"


def test_receivers(basis: Basis) -> None:
    authority, receiver = basis.world.stack.authority, basis.receiver
    assert authority.list_receivers() == [receiver]
    assert authority.get_receiver(receiver["id"]) == receiver
    key_id = receiver["keys"][0]["id"]
    revoked = authority.revoke_receiver_key(receiver["id"], key_id, reason_code="rotated", idempotency_key=key())
    assert (revoked["status"], revoked["reason_code"]) == ("revoked", "rotated")
    assert authority.get_receiver(receiver["id"])["status"] == "unverified"
    assert verify(basis.world, receiver["id"], Ed25519PrivateKey.generate())["status"] == "verified"


def test_use(basis: Basis) -> None:
    """A call under a binding: the receiver is shown a passport that it can verify, until the binding falls."""
    world, authority = basis.world, basis.world.stack.authority
    binding = basis.active()
    passport = world.passport(basis.agent_id, authority_binding_ids=[binding["id"]])
    claims = world.stack.passports.verify(passport.token)["claims"]
    assert [set(ref) for ref in claims["stk"]["authority_refs"]] == [
        {
            "binding_id",
            "binding_version",
            "binding_claim_id",
            "binding_digest",
            "receiver_id",
            "receiver_profile_version_id",
            "expires_at",
        }
    ]
    ref = claims["stk"]["authority_refs"][0]
    assert (ref["binding_id"], ref["binding_digest"]) == (binding["id"], binding["digest"])
    assert isinstance(ref["expires_at"], int)
    assert world.post(passport.token).status == 200
    shown = world.slack.requests[-1]["headers"]["x-stack-passport"]
    verified = verify_passport_header(shown, base_url=world.mock.url)
    assert verified["stk"]["authority_refs"] == claims["stk"]["authority_refs"]

    use = authority.list_uses()[0]
    assert (use["binding_id"], use["outcome"], use["host"]) == (binding["id"], "allowed", "slack.com")
    assert authority.get_use(use["id"]) == use
    presentation = authority.list_presentations()[0]
    assert (presentation["use_id"], presentation["passport_jti"]) == (use["id"], passport.jti)
    assert authority.get_presentation(presentation["id"]) == presentation
    tombstone = authority.erase_presentation(presentation["id"], idempotency_key=key())
    assert (tombstone["id"], tombstone["object"]) == (presentation["id"], "presentation")
    assert authority.list_presentations() == []

    authority.revoke_binding(binding["id"], reason_code="done", idempotency_key=key())
    with pytest.raises(ForbiddenError) as late:
        world.post(passport.token)
    assert (late.value.code, late.value.details["reason"]) == ("AUTHORITY_BINDING_INACTIVE", "revoked")
    assert authority.list_uses()[0]["outcome"] == "refused"
    with pytest.raises(ForbiddenError):
        world.passport(basis.agent_id, authority_binding_ids=[binding["id"]])


def test_mission_bindings(basis: Basis) -> None:
    stack, binding = basis.world.stack, basis.active()
    mission = stack.missions.open("Interop", authority_binding_ids=[binding["id"]])["mission_id"]
    passport = stack.passports.issue(basis.agent_id, intent="x", services=["slack"], mission_ids=[mission])
    refs = stack.passports.verify(passport.token)["claims"]["stk"]["authority_refs"]
    assert [ref["binding_id"] for ref in refs] == [binding["id"]]
