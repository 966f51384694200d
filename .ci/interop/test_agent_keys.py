"""Agents with keys of their own: Python's way to enrol and to sign, and key files that both languages use."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from getstack import AsyncStack, NotFoundError, Stack, StackError

from conftest import POST_MESSAGE, ROOT, World


@pytest.fixture(autouse=True)
def no_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STACK_AUTH_INTERACTIVE", "false")


def key_file(agent_id: str) -> Path:
    return Path(os.environ["HOME"]) / ".stack" / "agents" / f"{agent_id}.json"


def as_agent(world: World, agent_id: str, api_key: str | None = None) -> Stack:
    """The SDK in agent mode, with every answer but those of the enrolment judged."""
    client = Stack(agent_id=agent_id, api_key=api_key, base_url=world.mock.url)

    def look(response: httpx.Response) -> None:
        response.read()
        world.judge.judge(response)

    client._client._client.event_hooks["response"].append(look)
    return client


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def refused(call: Callable[[], Any], status: int, code: str) -> dict[str, Any]:
    with pytest.raises(StackError) as error:
        call()
    assert (error.value.status_code, error.value.code) == (status, code)
    details: dict[str, Any] = error.value.details
    return details


def test_python_enrols_and_works(world: World) -> None:
    agent = world.agent()
    with as_agent(world, agent.id, world.mock.api_key) as stack:
        assert stack.agents.get(agent.id).id == agent.id
        with stack.passports.mission(agent_id=agent.id, intent="Post an update", services=["slack"]) as mission:
            body = {"channel": "#support", "text": "hello"}
            answer = mission.proxy("slack", POST_MESSAGE, "POST", body=body, _proxy_service=stack.proxy)
            assert answer.status == 200
        refused(stack.agents.list, 403, "FORBIDDEN")
        refused(lambda: stack.agents.register("another"), 403, "FORBIDDEN")
        with pytest.raises(NotFoundError):
            stack.agents.get(world.agent().id)
    path = key_file(agent.id)
    assert path.stat().st_mode & 0o777 == 0o600
    stored = json.loads(path.read_text())
    assert stored["agent_id"] == agent.id and isinstance(stored["enrolled_at"], str)
    with as_agent(world, agent.id) as again:  # without an API key: the file is enough
        assert again.agents.get(agent.id).id == agent.id
    world.blank(agent.id)


def test_async(world: World) -> None:
    agent = world.agent()

    async def run() -> None:
        async with AsyncStack(agent_id=agent.id, api_key=world.mock.api_key, base_url=world.mock.url) as stack:
            assert (await stack.agents.get(agent.id)).id == agent.id

    asyncio.run(run())


def test_enrolment_on_the_wire(world: World) -> None:
    agent, private = world.agent(), Ed25519PrivateKey.generate()
    public = {"kty": "OKP", "crv": "Ed25519", "x": b64(private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))}

    def look(response: httpx.Response) -> None:
        response.read()
        world.judge.judge(response)

    headers = {
        "Authorization": f"Bearer {world.mock.api_key}",
        "Content-Type": "application/json",
        "User-Agent": world.stack._client._client.headers["User-Agent"],
    }
    with httpx.Client(base_url=world.mock.url, headers=headers, event_hooks={"response": [look]}) as http:
        challenge = http.post(f"/v1/agents/{agent.id}/enrollment-challenge").json()  # no body, as Python sends it
        body = {
            "public_key": public,
            "challenge_id": challenge["challenge_id"],
            "signed_challenge": b64(private.sign(challenge["challenge"].encode())),
        }
        enrolled = http.post(f"/v1/agents/{agent.id}/enroll", json=body).json()
        assert enrolled == {"agent_id": agent.id, "public_key": public, "enrolled_at": enrolled["enrolled_at"]}
        again = http.post(f"/v1/agents/{agent.id}/enroll", json=body)
        assert (again.status_code, again.json()["error"]["code"]) == (403, "ENROLLMENT_CHALLENGE_INVALID")

    def call(**claims: Any) -> tuple[int, str]:
        now = int(time.time())
        payload = {
            "iss": "stack-sdk",
            "sub": agent.id,
            "aud": "stack:agent",
            "iat": now,
            "nbf": now,
            "exp": now + 60,
            "jti": "aj_1",
            **claims,
        }
        token = jwt.encode(payload, private, algorithm="EdDSA")
        got = httpx.get(f"{world.mock.url}/v1/agents/{agent.id}", headers={"Authorization": f"Bearer {token}"})
        return got.status_code, got.json().get("error", {}).get("code", "")

    assert call() == (200, "")
    assert call() == (401, "AGENT_TOKEN_REPLAYED")
    assert call(jti="aj_2", exp=int(time.time()) + 90) == (401, "INVALID_AGENT_TOKEN")
    assert call(jti="aj_3", aud="stack:passport") == (401, "INVALID_AGENT_TOKEN")
    world.stack.agents.suspend(agent.id)
    assert call(jti="aj_4") == (403, "FORBIDDEN")


GO_AGENT = """
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/getstack-go/stack"
)

func main() {
	client, err := stack.New(stack.WithAgent(os.Args[1]))
	if err == nil {
		var a *stack.Agent
		a, err = client.Agents.Get(context.Background(), os.Args[1])
		if err == nil {
			fmt.Print(a.ID)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
"""


@pytest.fixture(scope="session")
def go_agent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Go program that calls as an agent, built inside the module so that it needs no other."""
    place = tmp_path_factory.mktemp("go")
    (place / "main.go").write_text(GO_AGENT)
    subprocess.run(["go", "build", "-o", str(place / "agent"), str(place / "main.go")], cwd=ROOT, check=True)
    return place / "agent"


def test_key_files(world: World, go_agent: Path) -> None:
    """Each language works with the key that the other has made, and neither needs the API key then."""

    def go(agent_id: str, api_key: str = "") -> str:
        environment = {"HOME": os.environ["HOME"], "STACK_API_KEY": api_key, "STACK_BASE_URL": world.mock.url}
        run = subprocess.run([str(go_agent), agent_id], env=environment, check=True, capture_output=True, text=True)
        return run.stdout

    first = world.agent().id
    with as_agent(world, first, world.mock.api_key) as stack:
        stack.agents.get(first)
    made = key_file(first).read_text()
    assert go(first) == first
    assert key_file(first).read_text() == made, "Python's file is as it was"

    second = world.agent().id
    assert go(second, world.mock.api_key) == second
    path = key_file(second)
    assert path.stat().st_mode & 0o777 == 0o600
    made = path.read_text()
    stored = json.loads(made)
    assert set(stored) == {"agent_id", "publicKey", "privateKey", "enrolled_at"}
    with as_agent(world, second) as stack:
        assert stack.agents.get(second).id == second
    assert path.read_text() == made, "Go's file is as it was"
    assert sorted(p.name for p in path.parent.iterdir()) == sorted([f"{first}.json", f"{second}.json"])


def test_many_go_processes(world: World, go_agent: Path) -> None:
    """Processes that begin at the same time do not take each other's key away."""
    agent = world.agent().id
    environment = {"HOME": os.environ["HOME"], "STACK_API_KEY": world.mock.api_key, "STACK_BASE_URL": world.mock.url}
    running = [
        subprocess.Popen([str(go_agent), agent], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(8)
    ]
    for process in running:
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (0, agent), err
    assert [p.name for p in key_file(agent).parent.iterdir()] == [f"{agent}.json"]
    rows = world.stack.audit.list(agent_id=agent)["entries"]
    assert [row["action"] for row in rows if row["action"] in ("agent.enroll", "agent.rotate_key")] == ["agent.enroll"]
