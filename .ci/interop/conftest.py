"""Fixtures: the built mock, one process of it per test, a Slack-like upstream, and the real SDK pointed at the mock."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from getstack import Agent, AsyncStack, Stack

from judge import Judge
from stackmock import Stackmock, Upstream

ROOT = Path(__file__).resolve().parents[2]
SLACK_SCOPES = ["channels:read", "chat:write"]
SLACK_TOKEN = "xoxb-interop-0123456789-not-a-real-token"
POST_MESSAGE = "https://slack.com/api/chat.postMessage"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The test of what the suite covers makes sense only after the whole suite, and last."""
    last = [item for item in items if item.path.name == "test_coverage.py"]
    rest = [item for item in items if item not in last]
    narrowed = config.option.keyword or [Path(a).resolve() for a in config.args] != [Path(__file__).resolve().parent]
    if narrowed and rest:
        config.hook.pytest_deselected(items=last)
        last = []
    items[:] = rest + last


@pytest.fixture(autouse=True)
def no_ambient_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (
        "STACK_API_KEY",
        "STACK_BASE_URL",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture(scope="session")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bin") / "stackmock"
    subprocess.run(["go", "build", "-o", str(path), "./cmd/stackmock"], cwd=ROOT, check=True)
    return path


@pytest.fixture
def slack() -> Iterator[Upstream]:
    upstream = Upstream()
    yield upstream
    upstream.close()


@pytest.fixture
def mock(binary: Path, slack: Upstream, tmp_path: Path) -> Iterator[Stackmock]:
    process = Stackmock(binary, tmp_path / "stackmock.log", "-control", "-upstream", f"slack.com={slack.url}")
    yield process
    status, rest = process.stop()
    log = process.log.read_text()
    assert (status, rest) == (0, b""), f"stackmock ended with status {status} and wrote {rest!r} to standard output: {log}"
    for secret in (process.api_key, SLACK_TOKEN):
        assert secret not in log, "a secret is in the log"


@pytest.fixture
def judge() -> Iterator[Judge]:
    judge = Judge()
    yield judge
    assert not judge.violations, "answers that break the contract:\n" + "\n".join(judge.violations)


@pytest.fixture
def stack(mock: Stackmock, judge: Judge) -> Iterator[Stack]:
    with Stack(api_key=mock.api_key, base_url=mock.url) as client:

        def look(response: httpx.Response) -> None:
            response.read()
            judge.judge(response)

        client._client._client.event_hooks["response"].append(look)
        yield client


@pytest.fixture
def world(stack: Stack, mock: Stackmock, slack: Upstream, judge: Judge) -> World:
    return World(stack, mock, slack, judge)


class World:
    """The SDK and the mock with Slack connected, and short ways to the things that most tests begin with."""

    def __init__(self, stack: Stack, mock: Stackmock, slack: Upstream, judge: Judge):
        self.stack, self.mock, self.slack, self.judge = stack, mock, slack, judge
        self.connection: str = stack.services.connect(service_id="slack", oauth_token=SLACK_TOKEN, scopes=SLACK_SCOPES)["id"]
        self._count = 0

    def agent(self, mode: str = "enforced", *, granted: bool = True, **fields: Any) -> Agent:
        """A registered agent that may use Slack."""
        self._count += 1
        agent = self.stack.agents.register(name=f"agent-{self._count}", accountability_mode=mode, **fields)
        if granted:
            self.grant(agent.id, self.connection, SLACK_SCOPES)
        return agent

    def grant(self, agent_id: str, connection: str, scopes: list[str]) -> dict[str, Any]:
        return self.stack.services.grant_agent_access(agent_id=agent_id, service_connection_id=connection, scopes=scopes)

    def custom(self, name: str, host: str, credential: Any = "custom-secret-0123456789") -> str:
        """A connected custom service whose host is the upstream."""
        self.mock.control("upstreams", {"host": host, "url": self.slack.url})
        connection: str = self.stack.services.connect_custom(name=name, credential=credential, scopes=["use"])["id"]
        return connection

    def passport(self, agent_id: str, *, services: tuple[str, ...] = ("slack",), hours: int = 1, **fields: Any) -> Any:
        """A passport for a Mission of its own."""
        mission = self.stack.missions.open("Interop", agent_id=agent_id, expires_in_seconds=hours * 3600)
        return self.stack.passports.issue(
            agent_id, intent="Interop", services=list(services), mission_ids=[mission["mission_id"]], **fields
        )

    def post(self, token: str, text: str = "hello", **fields: Any) -> Any:
        """One proxied write to Slack."""
        body = {"channel": "#support", "text": text}
        return self.stack.proxy.post("slack", POST_MESSAGE, body=body, passport_token=token, **fields)

    def events(self, agent_id: str, signal: str) -> list[dict[str, Any]]:
        """The agent's unresolved security events of one kind."""
        events = self.stack.security_events.list(agent_id=agent_id)["events"]
        return [event for event in events if event["signal_type"] == signal]

    def blank(self, agent_id: str) -> None:
        """Nothing has been seen of the agent that should not be."""
        assert self.stack.security_events.list(agent_id=agent_id)["events"] == []


@pytest.fixture
def async_stack(mock: Stackmock, judge: Judge) -> Any:
    """Makes an AsyncStack inside a running event loop."""

    def make() -> AsyncStack:
        client = AsyncStack(api_key=mock.api_key, base_url=mock.url)

        async def look(response: httpx.Response) -> None:
            await response.aread()
            judge.judge(response)

        client._client._client.event_hooks["response"].append(look)
        return client

    return make
