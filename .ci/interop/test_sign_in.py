"""A person in a browser: both SDKs sign in and have an agent's key approved, and each works with what the other was given."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from getstack import AsyncStack, Stack
from getstack.auth import CredentialsFileAuth

from conftest import ROOT, World
from test_agent_keys import as_agent, key_file

SCOPES = (
    "passports:read passports:write agents:read agents:write services:read "
    "services:connect credentials:read proxy:read proxy:write audit:read"
)

# What a person does in the browser that was opened: they look at the page, press a button, and are sent on.
PERSON = """
import fcntl
import os
import signal
import sys

signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the program's terminal may go before the page is shown
log = open(os.environ["PERSON_LOG"], "a")
fcntl.flock(log, fcntl.LOCK_SH)  # until the program ends: the browser outlives who has opened it

import httpx

page = httpx.get(sys.argv[1])
assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8"), page.text
pressed = httpx.post(sys.argv[1], data={"api_key": os.environ["PERSON_KEY"], "decision": os.environ["PERSON_DECISION"]})
assert pressed.status_code == 303, pressed.text
shown = httpx.get(pressed.headers["location"])
log.write(f"{sys.argv[1]} {shown.status_code}\\n")
"""

GO = """package main

import (
	"context"
	"fmt"
	"os"

	"github.com/getstack-go/stack"
)

func main() {
	var opts []stack.Option
	for _, id := range os.Args[1:] {
		opts = append(opts, stack.WithAgent(id))
	}
	client, err := stack.New(opts...)
	if err == nil && len(opts) > 0 {
		_, err = client.Agents.Get(context.Background(), os.Args[1])
	} else if err == nil {
		_, err = client.Agents.List(context.Background())
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Print("works")
}
"""


@pytest.fixture(scope="session")
def go_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Go program that calls with what it finds, as the agent that is its argument if there is one."""
    place = tmp_path_factory.mktemp("go")
    (place / "main.go").write_text(GO)
    subprocess.run(["go", "build", "-o", str(place / "program"), str(place / "main.go")], cwd=ROOT, check=True)
    return place / "program"


@dataclass
class Visit:
    """A page that was opened, and the status of ours at which the person ended."""

    url: str
    status: int

    @property
    def query(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(urlsplit(self.url).query, strict_parsing=True).items()}


class Desk:
    """A terminal with a person before it, and nothing in the home directory."""

    def __init__(self, world: World, program: Path, home: Path, place: Path):
        self.world, self.program, self.home, self.place = world, program, home, place
        self.log = place / "visits"
        (place / "xdg-open").write_text(f"#!{sys.executable}\n{PERSON}")
        (place / "xdg-open").chmod(0o755)

    def environment(self, decision: str) -> dict[str, str]:
        return {
            "HOME": str(self.home),
            "PATH": f"{self.place}:{os.environ['PATH']}",
            "STACK_BASE_URL": self.world.mock.url,
            "STACK_DASHBOARD_URL": self.world.mock.url,
            "PERSON_KEY": self.world.mock.api_key,
            "PERSON_DECISION": decision,
            "PERSON_LOG": str(self.log),
        }

    def open(self, decision: str) -> Callable[[str], bool]:
        """Stands in for webbrowser.open."""

        def run(url: str) -> bool:
            subprocess.run([str(self.place / "xdg-open"), url], env=self.environment(decision), check=True, timeout=30)
            return True

        return run

    def go(self, *agent: str, decision: str = "approve") -> tuple[int, str, str]:
        """Runs the Go program in a terminal: its status, output, and what it wrote to standard error."""
        ours, theirs = pty.openpty()
        try:
            process = subprocess.Popen(
                [str(self.program), *agent],
                env=self.environment(decision),
                stdin=subprocess.DEVNULL,
                stdout=theirs,
                stderr=subprocess.PIPE,
                text=True,
            )
            _, err = process.communicate(timeout=60)
            os.set_blocking(ours, False)
            return process.returncode, os.read(ours, 10_000).decode(), err
        finally:
            os.close(ours)
            os.close(theirs)

    def visits(self) -> list[Visit]:
        """What the person did since the last time."""
        with self.log.open("a+") as log:
            fcntl.flock(log, fcntl.LOCK_EX)  # the person has finished
            log.seek(0)
            lines = log.read().splitlines()
            log.truncate(0)
        return [Visit(url, int(status)) for url, status in (line.split() for line in lines)]

    def actions(self) -> list[str]:
        return [row["action"] for row in self.world.stack.audit.list(limit=100)["entries"]]


@pytest.fixture
def desk(world: World, go_program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    for name in ("CI", "STACK_AUTH_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("STACK_DASHBOARD_URL", world.mock.url)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    home, place = tmp_path / "home", tmp_path / "desk"
    home.mkdir()
    place.mkdir()
    monkeypatch.setenv("HOME", str(home))
    desk = Desk(world, go_program, home, place)
    monkeypatch.setattr("webbrowser.open", desk.open("approve"))
    return desk


def credentials(desk: Desk) -> Path:
    return desk.home / ".stack" / "credentials.json"


def signed_in(desk: Desk, client_name: str) -> None:
    """Both SDKs leave the same."""
    path = credentials(desk)
    assert path.stat().st_mode & 0o777 == 0o600
    stored = json.loads(path.read_text())
    assert stored.keys() == {"client_id", "refresh_token", "scope", "issued_at", "refresh_expires_at"}
    assert stored["scope"] == SCOPES
    assert 0 <= stored["refresh_expires_at"] - stored["issued_at"] - 30 * 24 * 3600 <= 1
    (visit,) = desk.visits()
    assert visit.status == 200
    query = visit.query
    assert query.keys() == {
        "response_type",
        "client_id",
        "redirect_uri",
        "scope",
        "resource",
        "code_challenge",
        "code_challenge_method",
        "state",
    }
    assert (query["client_id"], query["scope"]) == (stored["client_id"], SCOPES)
    assert client_name in httpx.get(visit.url).text


def test_python_signs_in(desk: Desk) -> None:
    with Stack(base_url=desk.world.mock.url) as theirs:
        assert isinstance(theirs._client.auth, CredentialsFileAuth)
        theirs.agents.list()
    signed_in(desk, "STACK Python SDK on ")
    assert desk.go()[:2] == (0, "works")
    with Stack(base_url=desk.world.mock.url) as theirs:
        theirs.agents.list()
    assert desk.visits() == [], "the file is enough"
    assert desk.actions().count("oauth.sign_in") == 1


def test_async_python_signs_in(desk: Desk) -> None:
    async def run() -> None:
        async with AsyncStack(base_url=desk.world.mock.url) as theirs:
            await theirs.agents.list()

    asyncio.run(run())
    signed_in(desk, "STACK Python SDK on ")


def test_from_session(desk: Desk) -> None:
    """The session of a person in the dashboard."""
    token = desk.world.mock.control("session", {})["session_token"]
    with Stack.from_session(token, base_url=desk.world.mock.url) as theirs:
        theirs.agents.list()


def test_go_signs_in(desk: Desk) -> None:
    status, out, err = desk.go()
    assert (status, out) == (0, "works"), err
    assert f"{desk.world.mock.url}/oauth/authorize?" in err, "the address is printed, too"
    signed_in(desk, "STACK Go SDK on ")
    with Stack(base_url=desk.world.mock.url) as theirs:
        theirs.agents.list()
    assert desk.go()[:2] == (0, "works")
    assert desk.visits() == []
    assert (desk.home / ".stack").stat().st_mode & 0o777 == 0o700


def test_a_session_enrols(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a person, the session in the file enrols an agent's key, in both languages."""
    with Stack(base_url=desk.world.mock.url) as theirs:
        theirs.agents.list()
    desk.visits()
    first, second = desk.world.agent().id, desk.world.agent().id
    assert desk.go(first)[:2] == (0, "works")
    monkeypatch.setenv("STACK_AUTH_INTERACTIVE", "false")
    with as_agent(desk.world, second) as stack:
        assert stack.agents.get(second).id == second
    assert desk.visits() == []


def test_sign_in_denied(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webbrowser.open", desk.open("deny"))
    with pytest.raises(RuntimeError, match="access_denied"):
        Stack(base_url=desk.world.mock.url)
    status, out, _ = desk.go(decision="deny")
    assert status == 1 and "ACCESS_DENIED" in out
    assert [visit.status for visit in desk.visits()] == [400, 400]
    assert not credentials(desk).exists()


def approved(desk: Desk, agent_id: str, process: str) -> None:
    (visit,) = desk.visits()
    assert visit.status == 200
    assert visit.query.keys() == {"agent_id", "callback", "state", "machine", "process"}
    assert visit.query["agent_id"] == agent_id
    assert visit.query["process"].startswith(process)
    path = key_file(agent_id)
    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads(path.read_text()).keys() == {"agent_id", "publicKey", "privateKey", "enrolled_at"}
    assert {"agent.enrollment_approve", "agent.enroll"} <= set(desk.actions())
    assert not credentials(desk).exists()


def test_python_enrols_by_approval(desk: Desk) -> None:
    agent = desk.world.agent().id
    with as_agent(desk.world, agent, desk.world.mock.api_key) as stack:  # in a terminal it asks, though it has a key
        assert stack.agents.get(agent).id == agent
    approved(desk, agent, "python ")
    assert desk.go(agent)[:2] == (0, "works")
    assert desk.visits() == []


def test_go_enrols_by_approval(desk: Desk) -> None:
    agent = desk.world.agent().id
    status, out, err = desk.go(agent)
    assert (status, out) == (0, "works"), err
    assert f"{desk.world.mock.url}/sdk-bootstrap?" in err
    approved(desk, agent, "go ")
    with as_agent(desk.world, agent) as stack:
        assert stack.agents.get(agent).id == agent
    assert desk.visits() == []


def test_enrolment_denied(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = desk.world.agent().id
    monkeypatch.setattr("webbrowser.open", desk.open("deny"))
    with as_agent(desk.world, agent) as stack, pytest.raises(RuntimeError, match="access_denied"):
        stack.agents.get(agent)
    status, out, _ = desk.go(agent, decision="deny")
    assert status == 1 and "ACCESS_DENIED" in out and agent in out
    assert [visit.status for visit in desk.visits()] == [403, 403]
    assert desk.actions().count("agent.enrollment_deny") == 2
    assert not key_file(agent).exists()
