"""The LLM gateway: three providers, plain and streamed, and what they used."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from getstack import ForbiddenError, StackError, UnauthorizedError

from conftest import World

KEY = "sk-interop-provider-0123456789"
PROVIDERS = {
    "anthropic": ("api.anthropic.com", "/v1/messages"),
    "openai": ("api.openai.com", "/v1/chat/completions"),
    "openrouter": ("openrouter.ai", "/api/v1/chat/completions"),
}
BODY = {"model": "some-model", "max_tokens": 10, "messages": [{"role": "user", "content": "I am ada@example.com"}]}


class LLM:
    """A world whose agent may use the three providers."""

    def __init__(self, world: World, mode: str = "logged", **fields: Any):
        self.world, self.stack = world, world.stack
        self.agent = world.agent(mode, granted=False, **fields)
        for provider, (host, _) in PROVIDERS.items():
            world.mock.control("upstreams", {"host": host, "url": world.slack.url})
            connection = world.stack.services.connect(service_id=provider, oauth_token=KEY, scopes=["api"])["id"]
            world.grant(self.agent.id, connection, ["api"])
        self.mission = world.stack.missions.open("Interop", agent_id=self.agent.id, expires_in_seconds=3600)["mission_id"]
        self.session = world.stack.issue_passport(
            agent_id=self.agent.id,
            mission_ids=[self.mission],
            intent={"summary": "Interop", "services": list(PROVIDERS)},
        )

    def create(self, provider: str) -> Any:
        if provider == "anthropic":
            return self.stack.llm.anthropic.messages.create
        return getattr(self.stack.llm, provider).chat.completions.create


@pytest.mark.parametrize("provider", PROVIDERS)
def test_plain_and_streamed(world: World, provider: str) -> None:
    llm = LLM(world)
    create = llm.create(provider)
    plain = create(body=BODY, passport=llm.session, stream=False, intent_approval_id=None, authority_request_id="o" * 24)
    assert plain == world.slack.llm_answer(PROVIDERS[provider][1])
    assert create(BODY, passport=llm.session.token, authority_request_id="o" * 24) == plain, "the same call"
    assert world.slack.paths() == [f"POST {PROVIDERS[provider][1]}"]
    request = world.slack.requests[0]
    name, value = ("x-api-key", KEY) if provider == "anthropic" else ("authorization", f"Bearer {KEY}")
    assert request["headers"][name] == value
    assert request["headers"].get("anthropic-version") == ("2023-06-01" if provider == "anthropic" else None)
    sent = world.slack.json(0)
    assert sent["messages"][-1] == {"role": "user", "content": "I am [EMAIL_1]"}
    context = sent["system"] if provider == "anthropic" else sent["messages"][0]["content"]
    assert context.startswith("Security context")
    assert "x-passport-token" not in request["headers"]

    events = list(create(body=BODY, passport=llm.session, stream=True, intent_approval_id="apr_unused"))
    assert events == world.slack.llm_events(PROVIDERS[provider][1])
    assert list(create(body={**BODY, "stream": True}, passport=llm.session)) == events
    assert world.slack.json()["stream"] is True

    rows = world.stack.llm.usage.list()["items"]
    assert [(row["stream"], row["complete"], row["outcome"]) for row in rows] == [
        (True, True, "completed"),
        (True, True, "completed"),
        (False, True, "completed"),
    ]
    assert {(row["input_tokens"], row["output_tokens"]) for row in rows} == {(11, 7)}
    world.blank(llm.agent.id)


def test_toggles(world: World) -> None:
    llm = LLM(world, llm_inject_system_prompt=False, llm_redact_pii=False)
    for provider in PROVIDERS:
        llm.create(provider)(BODY, passport=llm.session)
        assert world.slack.requests[-1]["raw"] == json.dumps(BODY, separators=(",", ":")).encode()


def test_refusals(world: World) -> None:
    llm = LLM(world)
    other = world.passport(world.agent("logged").id).token
    create = llm.create("openai")
    with pytest.raises(ForbiddenError) as outside:
        create(BODY, passport=other)
    assert outside.value.code == "FORBIDDEN" and "openai" in outside.value.details["hint"]
    with pytest.raises(UnauthorizedError):
        create(BODY, passport="no.passport.atall")
    with pytest.raises(StackError) as reused:
        create(BODY, passport=llm.session, authority_request_id="r" * 24)
        create({**BODY, "n": 2}, passport=llm.session, authority_request_id="r" * 24)
    assert (reused.value.status_code, reused.value.code) == (409, "OPERATION_ID_REUSED")
    with pytest.raises(RuntimeError, match=r"403 .*FORBIDDEN"):
        list(create(BODY, passport=other, stream=True))
    with pytest.raises(StackError) as bad:
        create({"messages": []}, passport=llm.session)
    assert bad.value.details["field"] == "body.model"
    world.stack.missions.revoke(llm.mission, reason="adversarial")
    with pytest.raises(UnauthorizedError) as revoked:
        create(BODY, passport=llm.session.token)
    assert revoked.value.code == "PASSPORT_REVOKED"


def test_the_provider_refuses(world: World) -> None:
    llm = LLM(world)
    with pytest.raises(StackError) as refused:
        llm.create("openai")({**BODY, "model": "refuse"}, passport=llm.session)
    assert refused.value.status_code == 429 and "slow down" in str(refused.value)
    row = world.stack.llm.usage.list(limit=1)["items"][0]
    assert (row["outcome"], row["status"], row["complete"]) == ("upstream_error", 429, False)


def test_usage(world: World) -> None:
    llm = LLM(world)
    for provider in PROVIDERS:
        llm.create(provider)(BODY, passport=llm.session)
    usage = world.stack.llm.usage
    first = usage.list(limit=2)
    second = usage.list(limit=2, cursor=first["next_cursor"])
    rows = first["items"] + second["items"]
    assert second["next_cursor"] is None
    assert [row["provider"] for row in rows] == ["openrouter", "openai", "anthropic"]
    jti = rows[0]["passport_jti"]
    everything = {
        "provider": "openai",
        "passport_jti": jti,
        "mission_id": llm.mission,
        "agent_id": llm.agent.id,
        "since": "2020-01-01T00:00:00Z",
        "until": "2100-01-01T00:00:00Z",
    }
    assert usage.list(limit=5, **everything)["items"] == [rows[1]]
    for name in everything:
        other = {"provider": "anthropic", "since": "2099-01-01T00:00:00Z", "until": "2021-01-01T00:00:00Z"}.get(name, "x")
        assert usage.list(**{**everything, name: other})["items"] == ([rows[2]] if name == "provider" else []), name
    total = usage.summary()
    assert (total["totals"]["calls"], total["totals"]["input_tokens"]) == (3, 33)
    assert [bucket["provider"] for bucket in total["buckets"]] == ["anthropic", "openai", "openrouter"]
    narrow = usage.summary(group_by_model=True, **everything)
    assert [(b["provider"], b["model"], b["calls"]) for b in narrow["buckets"]] == [("openai", "some-model", 1)]
    assert "model" not in usage.summary(group_by_model=False)["buckets"][0]
    with pytest.raises(StackError) as bad:
        usage.list(cursor="x")
    assert bad.value.details["field"] == "query.cursor"


def test_a_cut_stream_is_a_broken_connection(world: World) -> None:
    llm = LLM(world)
    world.mock.control("faults", {"path": "upstream:api.openai.com", "times": 1, "truncate_bytes": 60})
    with pytest.raises(httpx.HTTPError):
        list(llm.create("openai")(BODY, passport=llm.session, stream=True))
    row = world.stack.llm.usage.list()["items"][0]
    assert (row["outcome"], row["complete"], row["stream"]) == ("incomplete", False, True)
