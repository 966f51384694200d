"""Fleets: versioned policies, members that prove their keys, and Missions within what the policy gives."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from getstack import NotFoundError, Stack, StackError

from conftest import POST_MESSAGE, ROOT, SLACK_SCOPES, World

APPROVAL = "GOVERNANCE_APPROVAL_REQUIRED"


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def refused(call: Any, status: int, code: str) -> dict[str, Any]:
    with pytest.raises(StackError) as error:
        call()
    assert (error.value.status_code, error.value.code) == (status, code)
    details: dict[str, Any] = error.value.details
    return details


class Fleets:
    def __init__(self, world: World):
        self.world, self.fleets = world, world.stack.fleets
        self._count = 0

    def key(self) -> str:
        self._count += 1
        return f"key-{self._count}"

    def definition(self, **fields: Any) -> dict[str, Any]:
        """A policy that lets its members post to C123."""
        return {
            "name": "Support",
            "description": "Posts support updates",
            "members": {"max": 10, "kinds": ["agent", "workload"], "accountability_mode": "logged"},
            "access": [{"service_connection_id": self.world.connection, "scopes": SLACK_SCOPES}],
            "operations": [
                {
                    "name": "post-update",
                    "service": "slack",
                    "methods": ["POST"],
                    "path": "/api/chat.postMessage",
                    "constraints": [{"path": "body.channel", "op": "eq", "value": "C123"}],
                    "max_calls": 5,
                }
            ],
            "limits": {"max_actions": 10, "max_actions_per_service": {"slack": 8}, "max_dropoff_bytes": 1000},
            "max_live_missions": 5,
            "max_mission_ttl_seconds": 3600,
            "max_passport_ttl_seconds": 1800,
            **fields,
        }

    def activate(self, **fields: Any) -> dict[str, Any]:
        definition, key = self.definition(**fields), self.key()
        approval = refused(lambda: self.fleets.activate(definition, idempotency_key=key), 403, APPROVAL)["approval_id"]
        self.world.mock.approve(approval)
        return self.fleets.activate(definition, idempotency_key=key, governance_approval_id=approval)

    def answer(self, challenge: dict[str, Any]) -> dict[str, Any]:
        private = Ed25519PrivateKey.generate()
        public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return {
            "name": "helper",
            "idempotency_key": self.key(),
            "public_key": {"kty": "OKP", "crv": "Ed25519", "x": b64(public)},
            "challenge_id": challenge["challenge_id"],
            "proof": b64(private.sign(challenge["challenge"].encode())),
        }

    def enroll(self, policy_id: str) -> str:
        agent: str = self.fleets.enroll(policy_id, self.answer(self.fleets.enrollment_challenge(policy_id)))["agent_id"]
        return agent

    def request(self, policy_id: str, agent_id: str, **fields: Any) -> dict[str, Any]:
        return {
            "fleet_policy_id": policy_id,
            "agent_id": agent_id,
            "idempotency_key": self.key(),
            "intent_summary": "Post support updates",
            **fields,
        }


@pytest.fixture
def fleets(world: World) -> Fleets:
    return Fleets(world)


def run_fleet_mission_example(stack: Stack, request: dict[str, Any]) -> None:
    """The acceptance scenario of the package's description."""
    started = stack.missions.start(request)
    repeated = stack.missions.start(request)
    assert repeated["mission_id"] == started["mission_id"]
    operation = hashlib.sha256(json.dumps([started["mission_id"], "support-update"]).encode()).hexdigest()
    token = started["passport"]["token"]

    def post(channel: str, operation_id: str) -> Any:
        return stack.proxy.request(
            "slack",
            POST_MESSAGE,
            "POST",
            body={"channel": channel, "text": "Support update"},
            passport_token=token,
            authority_request_id=operation_id,
        )

    assert post("C123", operation).status == 200
    details = refused(lambda: post("OTHER", operation + "_denied"), 403, "FLEET_OPERATION_NOT_ALLOWED")
    assert "OTHER" in details["operations"][0]
    before = stack.missions.get(started["mission_id"])
    renewed = stack.missions.renew(started["mission_id"])
    after = stack.missions.get(renewed["mission_id"])
    assert renewed["mission_id"] == started["mission_id"]
    assert after["fleet"]["limits"] == before["fleet"]["limits"]
    assert after["fleet"]["usage"] == before["fleet"]["usage"]
    assert after["fleet"]["usage"]["actions"] == 1 and after["fleet"]["usage"]["calls_per_operation"] == {"post-update": 1}
    completed = stack.missions.complete(started["mission_id"], output={"done": True})
    assert completed["terminal_state"] == "completed_successful"
    stopped = stack.missions.start({**request, "idempotency_key": request["idempotency_key"] + "-stop"})
    assert stopped["mission_id"] != started["mission_id"]
    stack.missions.revoke(stopped["mission_id"], reason="operator_initiated_clean")
    with pytest.raises(StackError):
        stack.missions.renew(stopped["mission_id"])


def test_acceptance(fleets: Fleets) -> None:
    policy = fleets.activate()
    run_fleet_mission_example(fleets.world.stack, fleets.request(policy["id"], fleets.enroll(policy["id"])))


def test_policies(fleets: Fleets) -> None:
    api = fleets.fleets
    policy = fleets.activate()
    assert (policy["status"], policy["revision"], policy["member_count"]) == ("active", 1, 0)
    assert policy["definition"] == fleets.definition()
    assert api.get(policy["id"]) == policy
    assert api.list() == [policy]
    assert api.list_page() == {"items": [policy], "total": 1, "page": 1, "limit": 20}
    assert api.list_page(page=2, limit=5) == {"items": [], "total": 1, "page": 2, "limit": 5}

    tighter = fleets.definition(limits={"max_actions": 5, "max_actions_per_service": {"slack": 8}, "max_dropoff_bytes": 1000})
    second = api.revise(policy["id"], tighter, expected_revision=1, idempotency_key="second")
    assert second["revision"] == 2
    assert api.revise(policy["id"], tighter, expected_revision=1, idempotency_key="second") == second
    stale = refused(
        lambda: api.revise(policy["id"], tighter, expected_revision=1, idempotency_key="third"), 409, "REVISION_CONFLICT"
    )
    assert stale["allowed"] == 2
    refused(
        lambda: api.revise(policy["id"], fleets.definition(), expected_revision=2, idempotency_key="second"),
        409,
        "IDEMPOTENCY_KEY_REUSED",
    )

    def loosen(**approval: str) -> dict[str, Any]:
        return api.revise(policy["id"], fleets.definition(), expected_revision=2, idempotency_key="loosen", **approval)

    approval = refused(loosen, 403, APPROVAL)["approval_id"]
    fleets.world.mock.approve(approval)
    assert loosen(governance_approval_id=approval)["revision"] == 3
    for body in ({}, {"name": "x"}, fleets.definition(colour="red")):
        refused(lambda body=body: api.activate(body, idempotency_key=fleets.key()), 400, "INVALID_REQUEST")  # type: ignore[misc]
    refused(lambda: api.activate(fleets.definition(), idempotency_key=""), 400, "INVALID_REQUEST")
    with pytest.raises(NotFoundError):
        api.get("flp_x")


def test_members(fleets: Fleets) -> None:
    api, stack = fleets.fleets, fleets.world.stack
    policy = fleets.activate()["id"]
    challenge = api.enrollment_challenge(policy)
    request = fleets.answer(challenge)
    member = api.enroll(policy, request)
    assert api.enroll(policy, request) == member
    assert (member["kind"], member["status"], member["public_key"]) == ("agent", "active", request["public_key"])
    assert stack.agents.get(member["agent_id"]).accountability_mode == "logged"
    late = {**request, "idempotency_key": fleets.key()}
    refused(lambda: api.enroll(policy, late), 403, "ENROLLMENT_CHALLENGE_INVALID")
    forged = {**fleets.answer(api.enrollment_challenge(policy)), "proof": request["proof"]}
    refused(lambda: api.enroll(policy, forged), 403, "ENROLLMENT_PROOF_INVALID")

    workload = api.enroll_workload(policy, fleets.answer(api.workload_enrollment_challenge(policy)))
    assert workload["kind"] == "workload"
    assert api.membership(member["agent_id"]) == member
    assert api.membership(fleets.world.agent().id) is None
    assert api.members(policy) == [member, workload]
    assert api.members_page(policy) == {"items": [member, workload], "total": 2, "page": 1, "limit": 20}
    assert api.members_page(policy, page=2, limit=1)["items"] == [workload]

    session = api.session(policy)
    assert api.session() == session
    mission = stack.missions.start(fleets.request(policy, member["agent_id"]))
    other = stack.missions.start(fleets.request(policy, workload["agent_id"]))
    assert [p["session_id"] for p in stack.passports.list_active()] == [session["session_id"]] * 2
    revoked = api.revoke_member(policy, member["agent_id"])
    assert (revoked["status"], revoked["revoked_missions"], revoked["revoked_passports"]) == ("revoked", 1, 1)
    assert stack.missions.get(mission["mission_id"])["status"] == "revoked"
    assert api.membership(member["agent_id"]) is None
    assert api.revoke_member(policy, member["agent_id"])["revoked_missions"] == 0
    refused(lambda: stack.missions.start(fleets.request(policy, member["agent_id"])), 403, "FLEET_MEMBERSHIP_REQUIRED")
    whole = api.revoke(policy)
    assert (whole["revoked_members"], whole["revoked_missions"]) == (1, 1)
    assert not stack.passports.verify(other["passport"]["token"])["valid"]
    refused(lambda: api.enrollment_challenge(policy), 409, "FLEET_REVOKED")


def test_missions(fleets: Fleets) -> None:
    """Every parameter that a fleet gives a meaning, on both ways to a Mission."""
    stack, policy = fleets.world.stack, fleets.activate()["id"]
    agent = fleets.enroll(policy)
    fields: dict[str, Any] = {
        "requested_access": [{"service_connection_id": fleets.world.connection, "scopes": SLACK_SCOPES[:1]}],
        "requested_operations": [
            {
                "name": "post-update",
                "max_calls": 1,
                "constraints": [{"path": "body.text", "op": "matches", "value": "^hello$"}],
            }
        ],
        "limits": {"max_actions": 2, "max_actions_per_service": {"slack": 2}, "max_dropoff_bytes": 10},
    }
    opened = stack.missions.open(
        "Post", agent_id=agent, fleet_policy_id=policy, idempotency_key="open", expires_in_seconds=600, **fields
    )
    again = stack.missions.open(
        "Post", agent_id=agent, fleet_policy_id=policy, idempotency_key="open", expires_in_seconds=600, **fields
    )
    assert opened == again
    fleet = stack.missions.get(opened["mission_id"])["fleet"]
    assert (fleet["fleet_policy_id"], fleet["revision"], fleet["limits"]) == (policy, 1, fields["limits"])
    passport = stack.passports.issue(agent, intent="Post", services=["slack"], mission_ids=[opened["mission_id"]])
    assert fleets.world.stack.passports.verify(passport.token)["claims"]["stk"]["services"][0]["scopes"] == SLACK_SCOPES[:1]

    def post(token: str, channel: str = "C123", text: str = "hello") -> Any:
        body = {"channel": channel, "text": text}
        return stack.proxy.post("slack", POST_MESSAGE, body=body, passport_token=token)

    refused(lambda: post(passport.token, text="goodbye"), 403, "FLEET_OPERATION_NOT_ALLOWED")
    assert post(passport.token).status == 200
    refused(lambda: post(passport.token), 403, "MISSION_CAP_EXCEEDED")
    renewed = stack.missions.renew(opened["mission_id"])["passport"]["token"]
    refused(lambda: post(renewed), 403, "MISSION_CAP_EXCEEDED")
    for change, status, code in (
        ({"limits": {"max_actions": 11}}, 403, "FLEET_LIMIT_EXCEEDED"),
        ({"expires_in_seconds": 7200}, 403, "FLEET_LIMIT_EXCEEDED"),
        ({"requested_operations": [{"name": "delete"}]}, 400, "SCOPE_ESCALATION"),
        ({"requested_access": [{"service_connection_id": "scon_x", "scopes": ["x"]}]}, 400, "SCOPE_ESCALATION"),
        ({"agent_id": fleets.world.agent().id}, 403, "FLEET_MEMBERSHIP_REQUIRED"),
        ({"passport": {"ttl_seconds": 3600}}, 403, "FLEET_LIMIT_EXCEEDED"),
        ({"idempotency_key": ""}, 400, "INVALID_REQUEST"),
        ({"nonsense": 1}, 400, "INVALID_REQUEST"),
    ):
        request = {**fleets.request(policy, agent, **fields), **change}
        refused(lambda request=request: stack.missions.start(request), status, code)  # type: ignore[misc]


GO_ENROLL = """
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/getstack-go/stack"
)

func main() {
	client, err := stack.New()
	if err == nil {
		var m *stack.FleetMember
		m, err = client.Fleets.EnrollLocal(context.Background(), os.Args[1],
			stack.FleetEnrollLocalParams{Name: os.Args[2], IdempotencyKey: os.Args[3]})
		if err == nil {
			fmt.Print(m.AgentID)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
"""


@pytest.fixture(scope="session")
def go_enroll(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Go program that joins a fleet, built inside the module so that it needs no other."""
    place = tmp_path_factory.mktemp("go")
    (place / "main.go").write_text(GO_ENROLL)
    subprocess.run(["go", "build", "-o", str(place / "enroll"), str(place / "main.go")], cwd=ROOT, check=True)
    return place / "enroll"


def test_local_keys(fleets: Fleets, go_enroll: Path) -> None:
    """Python and Go make, find and use each other's keys."""
    api, mock = fleets.fleets, fleets.world.mock
    policy = fleets.activate()["id"]
    home = Path(os.environ["HOME"])
    keys = home / ".stack" / "agents"

    def go(name: str, key: str) -> str:
        environment = {"HOME": str(home), "STACK_API_KEY": mock.api_key, "STACK_BASE_URL": mock.url}
        run = subprocess.run([str(go_enroll), policy, name, key], env=environment, check=True, capture_output=True, text=True)
        return run.stdout

    def files() -> dict[str, Any]:
        assert all(path.stat().st_mode & 0o777 == 0o600 for path in keys.iterdir())
        return {path.stem: json.loads(path.read_text()) for path in keys.iterdir()}

    first = api.enroll_local(policy, name="from-python", idempotency_key="python")
    assert go("from-python", "python") == first["agent_id"]
    kept = files()
    assert len(kept) == 2 and kept[first["agent_id"]]["agent_id"] == first["agent_id"]

    second = go("from-go", "go")
    assert api.enroll_local(policy, name="from-go", idempotency_key="go")["agent_id"] == second
    workload = api.enroll_workload_local(policy, name="job", idempotency_key="job")
    assert workload["kind"] == "workload"
    after = files()
    assert len(after) == 6
    assert {name: after[name] for name in kept} == kept
    for entry in after.values():
        assert set(entry) == {"agent_id", "publicKey", "privateKey", "enrolled_at"} and isinstance(entry["enrolled_at"], float)
        assert set(entry["privateKey"]) == {"kty", "crv", "x", "d"}
    assert [member["name"] for member in api.members(policy)] == ["from-python", "from-go", "job"]
    assert api.membership(second)["public_key"] == after[second]["publicKey"]  # type: ignore[index]


def test_async(fleets: Fleets, async_stack: Any) -> None:
    policy = fleets.activate()["id"]
    agent = fleets.enroll(policy)

    async def run() -> None:
        async with async_stack() as stack:
            assert [p["id"] for p in await stack.fleets.list()] == [policy]
            assert (await stack.fleets.list_page(page=1, limit=1))["total"] == 1
            assert (await stack.fleets.membership(agent))["agent_id"] == agent
            assert len(await stack.fleets.members(policy)) == 1
            assert (await stack.fleets.session(policy))["fleet_policy_id"] == policy
            started = await stack.missions.start(fleets.request(policy, agent))
            assert (await stack.missions.get(started["mission_id"]))["fleet"]["fleet_policy_id"] == policy
            assert (await stack.fleets.revoke(policy))["revoked_missions"] == 1

    asyncio.run(run())
