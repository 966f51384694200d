"""What is not the SDK's business: the command itself, its control routes, its strictness about bad input."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from getstack import ForbiddenError, Stack, StackError, UnauthorizedError

from conftest import SLACK_SCOPES, SLACK_TOKEN, World
from judge import Judge
from stackmock import Stackmock, Upstream


def raw(world: World, method: str, path: str, **fields: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {world.mock.api_key}", **fields.pop("headers", {})}
    response = httpx.request(method, world.mock.url + path, headers=headers, **fields)
    world.judge.judge(response)
    return response


def error(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


# Bad input.


def test_keys(world: World) -> None:
    def call(**headers: str) -> httpx.Response:
        response = httpx.get(world.mock.url + "/v1/agents", headers=headers)
        world.judge.judge(response)
        return response

    assert error(call()) == (401, "UNAUTHORIZED")
    assert error(call(Authorization="Basic eDp5")) == (401, "UNAUTHORIZED")
    assert error(call(Authorization="Bearer sk_live_wrong")) == (401, "INVALID_API_KEY")
    with Stack(api_key="sk_live_wrong", base_url=world.mock.url) as stranger, pytest.raises(UnauthorizedError) as refused:
        stranger.agents.list()
    assert refused.value.code == "INVALID_API_KEY"


def test_unknown_routes_and_methods(world: World) -> None:
    missing = raw(world, "GET", "/v1/agentz")
    assert error(missing) == (404, "ROUTE_NOT_FOUND")
    assert "/v1/agents" in str(missing.json()["error"]["details"]["nearest"])
    wrong = raw(world, "PUT", "/v1/agents")
    assert error(wrong) == (405, "METHOD_NOT_ALLOWED")
    assert "GET" in wrong.headers["allow"]


@pytest.mark.parametrize(
    "content",
    [
        b'{"name": "fine", "colour": "red"}',
        b'{"name": 7}',
        b'{"name": "fine"} trailing',
        b'{"name": "fine"}{}',
        b'{"name": "fine"',
        b"[]",
        b"null",
        b"",
        b'{"name": "\xff\xfe"}',
    ],
    ids=["unknown field", "wrong type", "trailing text", "two values", "cut off", "array", "null", "empty", "not UTF-8"],
)
def test_bad_bodies(world: World, content: bytes) -> None:
    response = raw(world, "POST", "/v1/agents/register", content=content, headers={"Content-Type": "application/json"})
    assert error(response) == (400, "INVALID_REQUEST")


def test_content_type_and_size(world: World) -> None:
    text = raw(world, "POST", "/v1/agents/register", content=b'{"name":"fine"}', headers={"Content-Type": "text/plain"})
    assert error(text) == (415, "UNSUPPORTED_MEDIA_TYPE")
    large = b'{"name": "' + b"a" * (1 << 20) + b'"}'
    response = raw(world, "POST", "/v1/agents/register", content=large, headers={"Content-Type": "application/json"})
    assert error(response) == (413, "PAYLOAD_TOO_LARGE")


def test_a_refusal_explains_itself(world: World) -> None:
    response = raw(world, "POST", "/v1/agents/register", json={"name": "fine", "accountability_mode": "strict"})
    said = str(response.json()["error"])
    for word in ("accountability_mode", "strict", "enforced", "logged", "standard"):
        assert word in said


def test_request_ids_differ(world: World) -> None:
    ids = {raw(world, "GET", "/v1/agents").headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3


# The command and its control routes.


def test_control_is_off_unless_asked_for(binary: Path, tmp_path: Path) -> None:
    mock = Stackmock(binary, tmp_path / "log")
    try:
        answer = httpx.post(mock.url + "/_mock/clock", json={"advance_seconds": 1})
        assert error(answer) == (404, "ROUTE_NOT_FOUND")
        assert httpx.get(mock.url + "/v1/agents", headers={"Authorization": f"Bearer {mock.api_key}"}).json() == []
    finally:
        assert mock.stop() == (0, b"")


@pytest.mark.parametrize(
    "flags",
    [["-upstream", "slack.com"], ["-seed", "/does/not/exist"], ["-unknown"], ["-addr", "nonsense"]],
    ids=lambda flags: flags[0],
)
def test_bad_flags(binary: Path, flags: list[str]) -> None:
    command = [str(binary), "-addr", "127.0.0.1:0", *flags]
    run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False)
    assert run.returncode in (1, 2)
    assert run.stdout == b"", "the first line says that the server is ready"
    assert flags[0] in run.stderr.decode()


def test_seed(binary: Path, tmp_path: Path) -> None:
    seed = {
        "services": [{"service": "slack", "credential": SLACK_TOKEN, "scopes": SLACK_SCOPES}],
        "agents": [{"name": "seeded", "accountability_mode": "logged", "services": ["slack"]}],
    }
    path = tmp_path / "seed.json"
    path.write_text(json.dumps(seed))
    mock = Stackmock(binary, tmp_path / "log", "-seed", str(path))
    try:
        with Stack(api_key=mock.api_key, base_url=mock.url) as stack:
            (agent,) = stack.agents.list()
            assert (agent.name, agent.accountability_mode) == ("seeded", "logged")
            assert [connection["scopes"] for connection in stack.services.list()] == [SLACK_SCOPES]
            assert "chat:write" in str(stack.services.get_agent_permissions(agent.id))
    finally:
        assert mock.stop() == (0, b"")
    assert SLACK_TOKEN not in mock.log.read_text()


def test_real_dialling_refuses_private_addresses(binary: Path, slack: Upstream, tmp_path: Path) -> None:
    mock = Stackmock(binary, tmp_path / "log", "-allow-dial")
    try:
        with Stack(api_key=mock.api_key, base_url=mock.url) as stack:
            connection = stack.services.connect_custom("inside", "secret-0123456789", scopes=["use"])
            agent = stack.agents.register("dialler", accountability_mode="logged")
            stack.services.grant_agent_access(agent.id, connection["id"], ["use"])
            mission = stack.missions.open("Dial")["mission_id"]
            token = stack.passports.issue(agent.id, intent="Dial", services=["inside"], mission_ids=[mission]).token
            for url in (slack.url, slack.url.replace("127.0.0.1", "localhost"), "http://169.254.169.254/latest/meta-data"):
                with pytest.raises(StackError) as refused:
                    stack.proxy.get("inside", url, passport_token=token)
                assert refused.value.code in ("PROXY_TARGET_BLOCKED", "PROXY_HOST_NOT_ALLOWED")
    finally:
        assert mock.stop() == (0, b"")
    assert slack.requests == []


def test_control_answers_only_on_loopback_and_in_json(world: World) -> None:
    url = world.mock.url + "/_mock/clock"
    body = {"advance_seconds": 1}
    assert httpx.post(url, json=body, headers={"Host": "attacker.example"}).status_code == 403
    assert httpx.post(url, content=b"advance_seconds=1", headers={"Content-Type": "text/plain"}).status_code == 415
    for bad in ({"advance_seconds": -1}, {"advance_seconds": "1"}, {"advance": 1}, {}):
        assert error(httpx.post(url, json=bad)) == (400, "INVALID_REQUEST")
    assert httpx.post(world.mock.url + "/_mock/approve", json={"approval_id": "gov_unknown"}).status_code == 404


def test_state_and_reset(world: World) -> None:
    world.passport(world.agent().id)
    state = world.mock.control("state")
    assert isinstance(state, dict) and 1 in state.values()
    assert world.mock.control("reset", {}) == {
        "url": world.mock.url,
        "api_key": world.mock.api_key,
        "operator_id": world.mock.operator_id,
    }
    assert world.stack.agents.list() == []
    assert world.stack.services.list() == []


def test_faults(world: World) -> None:
    fault = world.mock.control(
        "faults",
        {"method": "GET", "path": "/v1/agents", "times": 1, "status": 503, "code": "TRY_LATER", "retry_after_seconds": 7},
    )
    assert set(fault) == {"fault_id"}
    with pytest.raises(StackError) as failed:
        world.stack.agents.list()
    assert (failed.value.status_code, failed.value.code) == (503, "TRY_LATER")
    assert world.judge.calls[-1]["headers"]["retry-after"] == "7"
    assert world.stack.agents.list() == []

    world.mock.control("faults", {"method": "POST", "path": "/v1/agents/register", "times": 1, "close": "before"})
    with pytest.raises(httpx.TransportError):
        world.stack.agents.register("lost-before")
    assert world.stack.agents.list() == []
    world.mock.control("faults", {"method": "POST", "path": "/v1/agents/register", "times": 1, "close": "after"})
    with pytest.raises(httpx.TransportError):
        world.stack.agents.register("lost-after")
    assert [agent.name for agent in world.stack.agents.list()] == ["lost-after"]
    world.mock.control("faults", {"method": "GET", "path": "/v1/agents", "times": 1, "truncate_bytes": 5})
    with pytest.raises((httpx.TransportError, ValueError)):
        world.stack.agents.list()

    fields = {"method": "GET", "path": "/v1/agents", "times": 1, "delay_ms": 50, "close": None}
    world.mock.control("faults", fields)
    started = time.monotonic()
    assert len(world.stack.agents.list()) == 1
    assert time.monotonic() - started >= 0.05


def test_policy(world: World) -> None:
    policy = world.mock.control("policy", {"rate_limit_per_minute": 3})
    assert policy["rate_limit_per_minute"] == 3
    with pytest.raises(StackError) as limited:
        for _ in range(5):
            world.stack.agents.list()
    assert (limited.value.status_code, limited.value.code) == (429, "RATE_LIMITED")
    assert int(world.judge.calls[-1]["headers"]["retry-after"]) >= 1
    world.mock.advance(60)
    assert world.stack.agents.list() == []
    assert world.mock.control("policy", {"rate_limit_per_minute": 0, "tier": "free"})["tier"] == "free"
    assert world.stack.proxy.usage()["tier"] == "free"
    assert world.stack.proxy.usage()["limit"] == 5000


def test_intent_approval_policy(world: World) -> None:
    token = world.passport(world.agent().id).token
    assert world.mock.control("policy", {"require_intent_approval": True})["require_intent_approval"] is True
    with pytest.raises(ForbiddenError) as refused:
        world.post(token)
    assert refused.value.code == "INTENT_APPROVAL_REQUIRED"
    assert world.slack.requests == []
    world.mock.control("policy", {"require_intent_approval": False})
    assert world.post(token).status == 200


def test_delayed_revocation(world: World) -> None:
    world.mock.control("policy", {"revocation_delay_seconds": 30})
    agent = world.agent()
    passport = world.passport(agent.id)
    world.stack.passports.revoke(passport.jti)
    assert world.post(passport.token).status == 200, "the revocation has not spread yet"
    world.mock.advance(31)
    with pytest.raises(UnauthorizedError):
        world.post(passport.token)


def test_judge_notices() -> None:
    """The judge itself can fail."""
    judge = Judge()
    request = httpx.Request("GET", "http://mock/v1/agents")
    judge.judge(httpx.Response(200, json=[{"id": "agt_1"}], request=request))
    judge.judge(httpx.Response(404, json={"error": "nope"}, request=request, headers={"X-Request-Id": "r"}))
    assert len(judge.violations) == 3
