"""A webhook as its owner would write it with the standard library: checks signatures by the description of their format."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from typing import Any

from conftest import World

HOST = "hooks.example"


class Hook:
    """A webhook destination whose host is the upstream; its path says how it answers."""

    def __init__(self, world: World, path: str = "/in"):
        self.world, self.path, self.url = world, path, f"https://{HOST}{path}"
        world.mock.control("upstreams", {"host": HOST, "url": world.slack.url})
        self.secret = ""

    def received(self) -> list[dict[str, Any]]:
        """The events that came so far, each with a good signature of the secret that the hook has now."""
        self.world.mock.control("clock", {"advance_seconds": 0})  # whatever is on its way arrives
        return [self.check(r) for r in self.world.slack.requests if r["path"] == self.path]

    def check(self, request: dict[str, Any]) -> dict[str, Any]:
        assert signed_with(self.secret, request), "signed with another secret"
        stamp = dict(part.split("=") for part in request["headers"]["x-stack-signature"].split(","))["t"]
        assert abs(time.time() - int(stamp)) < 60
        event: dict[str, Any] = json.loads(request["raw"])
        assert set(event) == {"id", "type", "severity", "operator_id", "message", "created_at", "data"}
        assert request["headers"]["x-stack-delivery"] == event["id"]
        assert request["headers"]["x-stack-event"] == event["type"]
        assert request["headers"]["content-type"] == "application/json"
        assert event["operator_id"] == self.world.mock.operator_id
        return event


def signed_with(secret: str, request: dict[str, Any]) -> bool:
    parts = dict(part.split("=") for part in request["headers"]["x-stack-signature"].split(","))
    want = hmac.new(secret.encode(), parts["t"].encode() + b"." + request["raw"], hashlib.sha256).hexdigest()
    return hmac.compare_digest(want, parts["v1"])


def outbox(world: World) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = world.mock.control("notifications")["messages"]
    return messages


def deliveries(world: World) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = world.mock.control("notifications")["deliveries"]
    return found
