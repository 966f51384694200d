"""Evidence packs: every scope, what supersedes what, and the verification of a pack by nothing of ours."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from getstack import ForbiddenError, NotFoundError, StackError, sign_claim_envelope

from conftest import World
from cose import read_claim, unbase64

# The contract's vector, as claim_envelope_test.go has it.
VECTOR = (
    "hFgoowEnBFFhZ2VudDphZ3RfdGVzdDp2MRBwc3RhY2svY2xhaW0rY29zZaBYMqdkdHlwZWZpbnRlbnRhbgFib2v1Y25pbPZhZvs_-AAAAAAAAGRsaXN0gmFhIGFi"
    "QgECWEBAoeA25TPpF_vy3puk0BAnCTkmOT13g3n6s6RUI4oML_19sbxIB1hwWHjLa55ATp0klrpuAzJpvFsUaaWLQMUE"
)


def ran(world: World) -> tuple[str, Any]:
    """A finished Mission with one call, one stray report and a checkout."""
    agent = world.agent("logged")
    mission = world.stack.missions.open("Interop <&> \u2028 é", agent_id=agent.id, baseline_profile={"z": 1.5e30, "a": 0.1})
    passport = world.stack.passports.issue(agent.id, intent="Interop", services=["slack"], mission_ids=[mission["mission_id"]])
    world.post(passport.token)
    world.stack.passports.checkpoint(passport.jti, services_used=["github"], actions_count=1)
    world.stack.passports.checkout(passport.jti, services_used=["slack"], actions_count=1)
    world.stack.missions.complete(mission["mission_id"])
    return mission["mission_id"], passport


def session_of(world: World, passport: Any) -> str:
    return str(world.stack.passports.report(passport.jti).passport["session_id"])


def quarter(world: World) -> str:
    now = world.mock.advance(0)
    return f"period:{now[:4]}-Q{(int(now[5:7]) + 2) // 3}"


def test_export_every_field(world: World, tmp_path: Path) -> None:
    packs = world.stack.evidence_packs
    mission, _ = ran(world)
    first = packs.export(scope_kind="mission", scope_ref=mission)
    path = tmp_path / "pack.json"
    pack = packs.export(
        scope_kind="mission", scope_ref=mission, supersedes=first["pack_id"], air_gap=True, output_path=str(path)
    )
    assert pack["pack_id"].startswith("ep_") and pack["claim_id"].startswith("pc_")
    assert pack["pack_claim"]["scope"] == {"kind": "mission", "ref": mission}
    assert (pack["pack_claim"]["supersedes"], pack["pack_claim"]["air_gap"]) == (first["pack_id"], True)
    assert json.loads(path.read_text()) == pack["manifest"]
    manifest = pack["manifest"]
    assert [m["mission_id"] for m in manifest["missions"]] == [mission]
    assert len(manifest["passports"]) == len(manifest["security_events"]) == len(manifest["operator_reviews"]) == 1
    assert len(manifest["passports"][0]["checkpoints"]) == 1 and manifest["passports"][0]["checkout"]
    assert {"mission.open", "passport.issue", "credential.proxy", "mission.complete"} <= {row["action"] for row in manifest["audit"]}
    assert packs.get(first["pack_id"])["superseded_by"] == pack["pack_id"]
    review = manifest["operator_reviews"][0]
    assert read_claim(unbase64(review["envelope_cose"]), world.mock.url) == review["claim"]
    with pytest.raises(StackError) as refused:
        packs.export(scope_kind="mission", scope_ref=mission, supersedes=first["pack_id"])
    assert (refused.value.status_code, refused.value.code) == (409, "EVIDENCE_PACK_SUPERSEDED")


def test_every_scope_and_the_list(world: World) -> None:
    packs = world.stack.evidence_packs
    mission, passport = ran(world)
    (event,) = world.stack.security_events.list()["events"]
    scopes = {
        "mission": mission,
        "session": session_of(world, passport),
        "incident": f"incident:{event['id']}",
        "period": quarter(world),
    }
    made = []
    for kind, ref in scopes.items():
        pack = packs.export(scope_kind=kind, scope_ref=ref)
        assert pack["manifest"]["scope"] == {"kind": kind, "ref": ref}
        assert pack["manifest"]["passports"][0]["passport"]["jti"] == passport.jti
        made.append(pack["pack_id"])
        name = ref if ref.startswith(kind) else f"{kind}:{ref}"
        assert [p["pack_id"] for p in packs.list(scope=name)["items"]] == [pack["pack_id"]]
    assert [p["pack_id"] for p in packs.list()["items"]] == made[::-1]


def test_offline_verification(world: World) -> None:
    packs = world.stack.evidence_packs
    mission, _ = ran(world)
    pack = packs.export(scope_kind="mission", scope_ref=mission)
    got = packs.get(pack["pack_id"])
    manifest = packs.download(pack["pack_id"])
    claim = read_claim(unbase64(got["envelope_cose"]), world.mock.url)
    assert claim == got["pack_claim"] == pack["pack_claim"]
    assert claim["manifest_sha256"] == hashlib.sha256(manifest).hexdigest()
    assert claim["manifest_bytes"] == len(manifest)
    content = json.loads(manifest)
    assert content == pack["manifest"]
    for name, section in content["sections"].items():
        assert section["count"] == len(content[name])
    for row in content["audit"]:
        hashed = {
            key: row[key]
            for key in "entry_id timestamp operator_id agent_id layer action outcome prev_entry_hash".split()
        }
        text = json.dumps(hashed, separators=(",", ":"), ensure_ascii=False)
        assert row["entry_hash"] == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("kind", "ref", "status"),
    [
        ("agent", "agt_1", 400),
        ("mission", "ses_1", 400),
        ("period", "period:2026", 400),
        ("period", "period:9999-Q4", 400),
        ("mission", "ms_unknown", 404),
        ("session", "ses_unknown", 404),
        ("incident", "incident:sev_unknown", 404),
    ],
)
def test_refuses(world: World, kind: str, ref: str, status: int) -> None:
    with pytest.raises(StackError) as refused:
        world.stack.evidence_packs.export(scope_kind=kind, scope_ref=ref)
    assert refused.value.status_code == status


def test_unknown_packs(world: World) -> None:
    for method in (world.stack.evidence_packs.get, world.stack.evidence_packs.download):
        with pytest.raises(NotFoundError):
            method("ep_unknown")


def test_only_on_the_enterprise_plan(world: World) -> None:
    world.mock.control("policy", {"tier": "studio"})
    with pytest.raises(ForbiddenError) as refused:
        world.stack.evidence_packs.list()
    assert refused.value.code == "TIER_LIMIT_EXCEEDED"


def test_claim_vector() -> None:
    """What the Go tests hold SignClaim against is what the SDK signs."""
    jwk = {
        "kty": "OKP",
        "crv": "Ed25519",
        "d": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",
        "x": "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg",
    }
    envelope = {"type": "intent", "n": 1, "ok": True, "nil": None, "f": 1.5, "list": ["a", -1], "b": b"\x01\x02"}
    signed = sign_claim_envelope(envelope, private_key=jwk, agent_id="agt_test")
    assert signed == VECTOR
