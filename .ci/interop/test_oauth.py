"""OAuth: the SDK signs in with tokens and with a credentials file, which it shares with the Go SDK."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from getstack import ForbiddenError, Stack, UnauthorizedError
from getstack.auth import CredentialsFileAuth

from conftest import ROOT, World

CALLBACK = "http://127.0.0.1:9/callback"
SCOPES = "agents:read agents:write passports:read passports:write services:read audit:read"


def authorize(world: World, *, scope: str = SCOPES, **client: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Registers a client as the SDK's browser bootstrap does, approves on the page, and redeems the code."""
    base = world.mock.url
    body = {"client_name": "interop", "redirect_uris": [CALLBACK], "grant_types": ["authorization_code", "refresh_token"], **client}
    registered = httpx.post(f"{base}/oauth/register", json=body | {"software_id": "getstackrun.sdk-python.bootstrap"})
    assert registered.status_code == 201, registered.text
    verifier = base64.urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"=").decode()
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    query = {
        "response_type": "code",
        "client_id": registered.json()["client_id"],
        "redirect_uri": CALLBACK,
        "scope": scope,
        "resource": "https://api.getstack.run",
        "code_challenge": challenge,
        "code_challenge_method": "S256",
        "state": "s-1",
    }
    page = httpx.get(f"{base}/oauth/authorize", params=query)
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    pressed = httpx.post(str(page.url), data={"api_key": world.mock.api_key, "decision": "approve"})
    assert pressed.status_code == 303
    answer = parse_qs(urlsplit(pressed.headers["location"]).query)
    assert answer["state"] == ["s-1"]
    form = {"grant_type": "authorization_code", "code": answer["code"][0], "redirect_uri": CALLBACK, "code_verifier": verifier}
    tokens = httpx.post(f"{base}/oauth/token", data=form | credentials(registered.json()))
    assert tokens.status_code == 200, tokens.text
    assert {"access_token", "refresh_token", "expires_in", "token_type", "scope"} <= tokens.json().keys()
    return registered.json(), tokens.json()


def credentials(client: dict[str, Any]) -> dict[str, str]:
    return {k: client[k] for k in ("client_id", "client_secret") if k in client}


def credentials_file(world: World) -> Path:
    """What the bootstrap leaves in the home directory, and a field that no SDK knows."""
    client, tokens = authorize(world)
    path = Path.home() / ".stack" / "credentials.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"client_id": client["client_id"], "refresh_token": tokens["refresh_token"], "scope": SCOPES, "profile": "x"}))
    return path


@pytest.mark.parametrize("method", ["none", "client_secret_post"])
def test_from_oauth(world: World, method: str) -> None:
    client, tokens = authorize(world, token_endpoint_auth_method=method)
    with Stack.from_oauth(
        client["client_id"],
        client.get("client_secret", ""),
        tokens["access_token"],
        tokens["refresh_token"],
        token_endpoint=f"{world.mock.url}/v1/oauth/token",
        base_url=world.mock.url,
    ) as theirs:
        agent = theirs.agents.register(name="bot")
        assert [a.id for a in theirs.agents.list()] == [agent.id]
        with pytest.raises(ForbiddenError) as refused:
            theirs.proxy.usage()
        assert refused.value.details["allowed"] == "proxy:read"
        with pytest.raises(ForbiddenError):
            theirs.team.list()

        world.mock.control("clock", {"advance_seconds": 301})
        with pytest.raises(UnauthorizedError):
            theirs.agents.list()
        theirs._client.auth.expires_at = 1.0  # the SDK itself learns of an expiry only by a refresh
        assert [a.id for a in theirs.agents.list()] == [agent.id]
        assert theirs._client.auth.refresh_token != tokens["refresh_token"]

        reused = httpx.post(
            f"{world.mock.url}/oauth/token",
            data={"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"], **credentials(client)},
        )
        assert (reused.status_code, reused.json()["error"]) == (400, "invalid_grant")
        with pytest.raises(UnauthorizedError):
            theirs.agents.list()


def test_credentials_file(world: World) -> None:
    path = credentials_file(world)
    before = json.loads(path.read_text())
    with Stack(base_url=world.mock.url) as theirs:
        assert isinstance(theirs._client.auth, CredentialsFileAuth)
        theirs.agents.list()
    after = json.loads(path.read_text())
    assert after["refresh_token"] != before["refresh_token"]
    assert after.keys() == before.keys() | {"issued_at", "refresh_expires_at"}


GO = """package main

import (
	"context"
	"fmt"
	"os"

	"github.com/getstack-go/stack"
)

func main() {
	client, err := stack.New(stack.WithBaseURL(os.Args[1]))
	if err == nil {
		_, err = client.Agents.List(context.Background())
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}
"""


@pytest.fixture(scope="session")
def go_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that signs in with what is in the home directory."""
    place = tmp_path_factory.mktemp("go")
    (place / "main.go").write_text(GO)
    subprocess.run(["go", "build", "-o", str(place / "client"), str(place / "main.go")], cwd=ROOT, check=True)
    return place / "client"


def test_shared_with_go(world: World, go_client: Path) -> None:
    path = credentials_file(world)
    seen = [json.loads(path.read_text())]
    for _ in range(2):
        ran = subprocess.run([str(go_client), world.mock.url], capture_output=True, text=True)
        assert ran.returncode == 0, ran.stdout
        seen.append(json.loads(path.read_text()))
        assert path.stat().st_mode & 0o777 == 0o600
        with Stack(base_url=world.mock.url) as theirs:
            theirs.agents.list()
        seen.append(json.loads(path.read_text()))
    assert len({fields["refresh_token"] for fields in seen}) == 5, "each has used the other's and left the next"
    assert all(fields["profile"] == "x" and fields["scope"] == SCOPES for fields in seen)
    log = [row["action"] for row in world.stack.audit.list(limit=100)["entries"]]
    assert log.count("oauth.refresh") == 4
    assert "oauth.session_revoke" not in log


@pytest.fixture(scope="session")
def command(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Go SDK's command line."""
    path = tmp_path_factory.mktemp("bin") / "stack"
    subprocess.run(["go", "build", "-o", str(path), "./cmd/stack"], cwd=ROOT, check=True)
    return path


def test_signed_in_by_the_command(world: World, command: Path) -> None:
    """What `stack auth login` leaves in the home directory serves the SDK; what the SDK leaves there serves the command."""
    base = world.mock.url
    with subprocess.Popen([str(command), "auth", "login", "--base-url", base], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as login:
        assert login.stderr is not None
        shown = re.search(r"code: (\S+)$", login.stderr.readline())
        assert shown, "the first line shows the code"
        page = httpx.get(f"{base}/oauth/device", params={"user_code": shown[1]})
        assert (page.status_code, shown[1] in page.text) == (200, True)
        pressed = httpx.post(str(page.url), data={"api_key": world.mock.api_key, "decision": "approve"})
        assert pressed.status_code == 200
        out, err = login.communicate(timeout=30)
        assert login.returncode == 0, err
    assert f"Signed in to {base} as {world.mock.operator_id}" in out
    path = Path.home() / ".stack" / "credentials.json"
    assert path.stat().st_mode & 0o777 == 0o600
    with Stack(base_url=base) as theirs:
        assert isinstance(theirs._client.auth, CredentialsFileAuth)
        agent = theirs.agents.register(name="bot")

    def run(*args: str) -> str:
        return subprocess.run([str(command), *args, "--base-url", base, "--json"], capture_output=True, text=True, check=True).stdout

    assert json.loads(run("audit", "tail", "-n", "1", "--agent", agent.id))["action"] == "agent.register"
    assert json.loads(run("audit", "verify"))["valid"] is True
    with Stack(base_url=base) as theirs:
        assert [a.id for a in theirs.agents.list()] == [agent.id]
    assert json.loads(run("auth", "logout")) == {"revoked": True}
    assert not path.exists()
