"""Drop-offs: one payload from one agent to another, checked, sealed and collected once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from getstack import ForbiddenError, NotFoundError, StackError, UnauthorizedError

from conftest import World

SCHEMA = {
    "type": "object",
    "properties": {"rows": {"type": "array", "items": {"type": "object", "required": ["n"]}}},
    "required": ["rows"],
}
PAYLOAD = {"rows": [{"n": 12345678901234567890, "note": "canary-31c7 é <&>"}]}
CANARY = "canary-31c7"


class Handoff:
    def __init__(self, world: World):
        self.world, self.dropoffs = world, world.stack.dropoffs
        self.producer, self.consumer = world.agent("logged"), world.agent("logged")

    def create(self, **fields: Any) -> str:
        created = self.dropoffs.create(
            **{"from_agent_id": self.producer.id, "to_agent_id": self.consumer.id, "schema": SCHEMA, **fields}
        )
        assert created["status"] == "created"
        return str(created["id"])

    def deposit(self, dropoff: str, **fields: Any) -> dict[str, Any]:
        return self.dropoffs.deposit(dropoff, **{"data": PAYLOAD, "agent_id": self.producer.id, **fields})

    def collect(self, dropoff: str, **fields: Any) -> dict[str, Any]:
        return self.dropoffs.collect(dropoff, **{"agent_id": self.consumer.id, **fields})


@pytest.fixture
def handoff(world: World) -> Handoff:
    return Handoff(world)


def refused(call: Any, status: int, code: str, **fields: Any) -> dict[str, Any]:
    with pytest.raises(StackError) as error:
        call(**fields)
    assert (error.value.status_code, error.value.code) == (status, code)
    assert CANARY not in str(error.value) + str(error.value.details)
    return error.value.details


def test_hands_over(handoff: Handoff) -> None:
    dropoff = handoff.create()
    deposited = handoff.deposit(dropoff)
    assert deposited["status"] == "deposited" and deposited["deposited_bytes"] > 0 and deposited["deposited_at"]
    assert CANARY not in str(handoff.dropoffs.get(dropoff)) + str(handoff.dropoffs.list())
    assert handoff.collect(dropoff) == {"id": dropoff, "status": "collected", "payload": PAYLOAD}
    last = handoff.dropoffs.get(dropoff)
    assert (last["status"], last["from_agent_id"], last["to_agent_id"], last["on_expire"]) == (
        "collected",
        handoff.producer.id,
        handoff.consumer.id,
        "notify",
    )
    other = handoff.create()
    assert [item["id"] for item in handoff.dropoffs.list()] == [dropoff, other]
    log = handoff.world.stack.audit.list(limit=100)["entries"]
    assert {entry["action"] for entry in log if entry["layer"] == "dropoff"} == {
        "dropoff.create",
        "dropoff.deposit",
        "dropoff.collect",
    }
    assert CANARY not in str(log)


def test_states(handoff: Handoff) -> None:
    dropoff = handoff.create()
    refused(handoff.collect, 409, "DROPOFF_NOT_DEPOSITED", dropoff=dropoff)
    handoff.deposit(dropoff)
    refused(handoff.deposit, 409, "DROPOFF_ALREADY_DEPOSITED", dropoff=dropoff)
    handoff.collect(dropoff)
    refused(handoff.collect, 409, "DROPOFF_ALREADY_COLLECTED", dropoff=dropoff)
    refused(handoff.dropoffs.expire, 409, "DROPOFF_ALREADY_COLLECTED", dropoff_id=dropoff)

    ended = handoff.create()
    handoff.deposit(ended)
    assert handoff.dropoffs.expire(ended)["status"] == "expired"
    assert handoff.dropoffs.expire(ended)["status"] == "expired"
    refused(handoff.collect, 410, "DROPOFF_EXPIRED", dropoff=ended)
    for call in (handoff.dropoffs.get, handoff.dropoffs.expire):
        with pytest.raises(NotFoundError):
            call("drp_unknown")


def test_schema(handoff: Handoff) -> None:
    dropoff = handoff.create()
    details = refused(
        handoff.deposit, 400, "SCHEMA_VALIDATION_FAILED", dropoff=dropoff, data={"rows": [{"n": 1}, {"m": CANARY}]}
    )
    assert (details["path"], details["keyword"]) == ("/rows/1", "required")
    handoff.deposit(dropoff)
    for schema in ({"type": "strin"}, {"$ref": "https://example.com/s.json"}, {"$ref": "#"}):
        details = refused(handoff.create, 400, "INVALID_REQUEST", schema=schema)
        assert details["field"] == "body.schema"
    old = handoff.create(
        schema={
            "$schema": "http://json-schema.org/draft-07/schema#",
            "definitions": {"n": {"type": "number"}},
            "additionalProperties": {"$ref": "#/definitions/n"},
        }
    )
    refused(handoff.deposit, 400, "SCHEMA_VALIDATION_FAILED", dropoff=old, data={"a": "1"})
    handoff.deposit(old, data={"a": 1})


def test_expiry(handoff: Handoff) -> None:
    short = handoff.create(ttl_seconds=60, on_expire="notify")
    default, long = handoff.create(), handoff.create(ttl_seconds=86_400)
    handoff.deposit(short)
    handoff.world.mock.advance(60)
    refused(handoff.collect, 410, "DROPOFF_EXPIRED", dropoff=short)
    assert handoff.dropoffs.get(default)["status"] == "created"
    handoff.world.mock.advance(1740)
    assert handoff.dropoffs.get(default)["status"] == "expired"
    assert handoff.dropoffs.get(long)["status"] == "created"
    actions = [entry["action"] for entry in handoff.world.stack.audit.list(limit=100)["entries"]]
    assert actions.count("dropoff.expire") == 2
    refused(handoff.create, 400, "INVALID_REQUEST", ttl_seconds=86_401)
    refused(handoff.create, 400, "INVALID_REQUEST", on_expire="shout")


def test_agents(handoff: Handoff) -> None:
    stranger = handoff.world.agent("logged")
    dropoff = handoff.create()
    for agent in (handoff.consumer, stranger):
        with pytest.raises(ForbiddenError):
            handoff.deposit(dropoff, agent_id=agent.id)
    handoff.deposit(dropoff)
    for agent in (handoff.producer, stranger):
        with pytest.raises(ForbiddenError):
            handoff.collect(dropoff, agent_id=agent.id)
    with pytest.raises(NotFoundError):
        handoff.create(to_agent_id="agt_unknown")


def test_passports(handoff: Handoff) -> None:
    world = handoff.world
    mine, theirs = world.passport(handoff.producer.id), world.passport(handoff.consumer.id)
    mission = world.stack.passports.verify(mine.token)["claims"]["stk"]["mission_ids"][0]
    with pytest.raises(ForbiddenError):
        handoff.create(passport_token=theirs.token)
    dropoff = handoff.create(passport_token=mine.token)
    assert handoff.dropoffs.get(dropoff)["mission_id"] == mission
    with pytest.raises(ForbiddenError):
        handoff.deposit(dropoff, passport_token=theirs.token)
    handoff.deposit(dropoff, passport_token=mine.token, passport_jti=mine.jti, mission_id=mission)
    with pytest.raises(ForbiddenError):
        handoff.collect(dropoff, passport_token=mine.token)
    assert handoff.collect(dropoff, passport_token=theirs.token)["payload"] == PAYLOAD
    by_jti = handoff.create()
    assert handoff.deposit(by_jti, passport_jti=mine.jti)["mission_id"] == mission
    world.stack.passports.revoke(mine.jti)
    with pytest.raises(UnauthorizedError) as dead:
        handoff.create(passport_token=mine.token)
    assert dead.value.code == "PASSPORT_REVOKED"


def test_mission_cap(handoff: Handoff) -> None:
    mission = handoff.world.stack.missions.open("Hand over", agent_id=handoff.producer.id, max_dropoff_bytes=60)["mission_id"]
    small = {"rows": []}
    assert handoff.deposit(handoff.create(), data=small, mission_id=mission)["deposited_bytes"] == 11
    dropoff = handoff.create()
    details = refused(handoff.deposit, 403, "MISSION_CAP_EXCEEDED", dropoff=dropoff, mission_id=mission)
    assert (details["cap"], details["allowed"]) == ("max_dropoff_bytes", 60)
    handoff.deposit(dropoff, data=small, mission_id=mission)


def test_one_collector_wins(handoff: Handoff) -> None:
    dropoff = handoff.create()
    handoff.deposit(dropoff)

    def collect(_: int) -> str:
        try:
            handoff.collect(dropoff)
        except StackError as error:
            return error.code
        return "won"

    with ThreadPoolExecutor(max_workers=8) as pool:
        results = list(pool.map(collect, range(8)))
    assert sorted(results) == ["DROPOFF_ALREADY_COLLECTED"] * 7 + ["won"]
