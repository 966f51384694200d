"""Services, grants and raw credentials."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from getstack import ForbiddenError, NotFoundError, StackError, UnauthorizedError

from conftest import POST_MESSAGE, SLACK_SCOPES, SLACK_TOKEN, World


def test_catalogue(world: World) -> None:
    available = {entry["provider"]: entry for entry in world.stack.services.list_available()}
    assert {"slack", "github", "notion", "stripe", "openai", "anthropic"} <= set(available)
    entry = available["slack"]
    assert entry["id"].startswith("svc_")
    assert "slack.com" in entry["allowed_hosts"]
    assert entry["auth_kind"] in ("oauth", "api_key", "basic", "custom")
    assert set(SLACK_SCOPES) <= set(entry["scopes"])
    assert isinstance(world.stack.services.list_templates(), list)


def test_connect_by_id_and_by_provider(world: World) -> None:
    services = world.stack.services
    github = next(entry for entry in services.list_available() if entry["provider"] == "github")
    connection = services.connect(service_id=github["id"], oauth_token="gho_interop_token_0123456789", scopes=["repo"])
    assert (connection["provider"], connection["scopes"]) == ("github", ["repo"])
    assert connection["id"].startswith("scon_")
    connected = services.list()
    assert {item["id"] for item in connected} == {connection["id"], world.connection}
    assert "gho_interop_token_0123456789" not in str(connected), "a listing never holds the secret"


@pytest.mark.parametrize(
    "fields",
    [
        {"service_id": "slack", "oauth_token": "t", "scopes": []},
        {"service_id": "stripe", "oauth_token": "", "scopes": ["read_only"]},
    ],
    ids=["no scope", "no token"],
)
def test_connect_refuses(world: World, fields: dict[str, str]) -> None:
    with pytest.raises(StackError) as refused:
        world.stack.services.connect(**fields)
    assert (refused.value.status_code, refused.value.code) == (400, "INVALID_REQUEST")


def test_connect_unknown_service(world: World) -> None:
    with pytest.raises(NotFoundError):
        world.stack.services.connect(service_id="svc_unknown", oauth_token="t", scopes=["x"])


def consent(asked: dict[str, Any], decision: str = "approve") -> httpx.Response:
    """Opens the provider's page and presses a button; the answer is the page that this ends on."""
    page = httpx.get(asked["authorization_url"])
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "GitHub" in page.text and all(f"<li>{scope}</li>" in page.text for scope in asked["scopes"])
    return httpx.post(asked["authorization_url"], data={"decision": decision}, follow_redirects=True)


def test_connect_by_consent(world: World) -> None:
    services = world.stack.services
    world.mock.control("upstreams", {"host": "api.github.com", "url": world.slack.url})

    denied = services.connect(service_id="github", oauth_token="", scopes=["repo"])
    assert denied["status"] == "pending"
    assert consent(denied, "deny").status_code == 400
    assert denied["id"] not in str(services.list())

    asked = services.connect(service_id="github", oauth_token="", scopes=["repo", "user:email"])
    done = consent(asked)
    assert (done.status_code, "is connected" in done.text) == (200, True)
    connection = next(item for item in services.list() if item["id"] == asked["id"])
    assert (connection["status"], connection["scopes"]) == ("connected", ["repo", "user:email"])
    assert httpx.get(done.url).status_code == 400, "the state is good once"

    agent = world.agent("logged", granted=False)
    world.grant(agent.id, asked["id"], ["repo"])

    def call() -> str:
        token = world.passport(agent.id, services=("github",)).token
        assert world.stack.proxy.get("github", "https://api.github.com/user", passport_token=token).status == 200
        header: str = world.slack.requests[-1]["headers"]["authorization"]
        assert header.startswith("Bearer github_at_")
        return header

    first = call()
    assert call() == first
    world.mock.control("clock", {"advance_seconds": 3600})
    assert call() != first
    log = world.stack.audit.list(limit=100)["entries"]
    assert [row["action"] for row in log].count("service.refresh") == 1
    assert "github_at_" not in str(log)

    world.mock.control("clock", {"advance_seconds": 3600})
    world.mock.control("faults", {"method": "POST", "path": "/providers/{provider}/token", "times": 1, "status": 400, "code": "invalid_grant"})
    with pytest.raises(ForbiddenError) as refused:
        call()
    assert (refused.value.code, refused.value.details["connection_id"]) == ("CONNECTION_REAUTH_REQUIRED", asked["id"])
    assert services.verify(asked["id"])["status"] == "reauth_required"
    anew = {"service_id": "github", "scopes": ["repo", "user:email"], "connection_id": asked["id"]}
    assert consent(world.stack._client.post("/v1/services/connect", json=anew)).status_code == 200
    assert call() != first


def test_custom_string(world: World) -> None:
    connection = world.stack.services.connect_custom(
        name="crm", credential="crm-secret-0123456789", description="Our CRM", scopes=["read"]
    )
    assert (connection["provider"], connection["scopes"]) == ("crm", ["read"])
    world.mock.control("upstreams", {"host": "crm.example", "url": world.slack.url})
    agent = world.agent("logged", granted=False)
    world.grant(agent.id, connection["id"], ["read"])
    token = world.passport(agent.id, services=("crm",)).token
    assert world.stack.proxy.get("crm", "https://crm.example/contacts", passport_token=token).status == 200
    assert world.slack.requests[-1]["headers"]["authorization"] == "Bearer crm-secret-0123456789"


@pytest.mark.parametrize(
    ("credential", "header", "value"),
    [
        ({"username": "ada", "password": "pw-0123456789"}, "authorization", "Basic YWRhOnB3LTAxMjM0NTY3ODk="),
        ({"header:X-Service-Key": "key-0123456789"}, "x-service-key", "key-0123456789"),
    ],
    ids=["basic", "named header"],
)
def test_custom_map(world: World, credential: dict[str, str], header: str, value: str) -> None:
    connection = world.custom("mapped", "mapped.example", credential)
    agent = world.agent("logged", granted=False)
    world.grant(agent.id, connection, ["use"])
    token = world.passport(agent.id, services=("mapped",)).token
    assert world.stack.proxy.get("mapped", "https://mapped.example/x", passport_token=token).status == 200
    assert world.slack.requests[-1]["headers"][header] == value


def test_verify(world: World) -> None:
    assert isinstance(world.stack.services.verify(world.connection), dict)
    connection = next(item for item in world.stack.services.list() if item["id"] == world.connection)
    assert connection["verified"] is True
    with pytest.raises(NotFoundError):
        world.stack.services.verify("scon_unknown")


def test_grants(world: World) -> None:
    agent = world.agent(granted=False)
    assert isinstance(world.grant(agent.id, world.connection, ["chat:write"]), dict)
    permissions = world.stack.services.get_agent_permissions(agent.id)
    assert world.connection in str(permissions) and "chat:write" in str(permissions)
    assert "channels:read" not in str(permissions)

    with pytest.raises(StackError) as wider:
        world.grant(agent.id, world.connection, ["chat:write", "admin"])
    assert wider.value.status_code in (400, 403)
    with pytest.raises(StackError) as none:
        world.grant(agent.id, world.connection, [])
    assert (none.value.status_code, none.value.code) == (400, "INVALID_REQUEST")
    with pytest.raises(NotFoundError):
        world.grant("agt_unknown", world.connection, ["chat:write"])
    with pytest.raises(NotFoundError):
        world.grant(agent.id, "scon_unknown", ["chat:write"])


def test_an_intent_does_not_grant(world: World) -> None:
    agent = world.agent(granted=False)
    with pytest.raises(StackError) as refused:
        world.post(world.passport(agent.id).token)
    assert refused.value.status_code == 403
    assert world.slack.requests == []


def test_revoke_agent_access(world: World) -> None:
    agent, other = world.agent(), world.agent()
    token, kept = world.passport(agent.id).token, world.passport(other.id).token
    assert isinstance(world.stack.services.revoke_agent_access(agent.id), dict)
    with pytest.raises(UnauthorizedError) as dead:
        world.post(token)
    assert dead.value.code == "PASSPORT_REVOKED"
    assert world.connection not in str(world.stack.services.get_agent_permissions(agent.id))
    assert world.post(kept).status == 200


def test_disconnect(world: World) -> None:
    agent = world.agent()
    token = world.passport(agent.id).token
    assert isinstance(world.stack.services.disconnect(world.connection), dict)
    with pytest.raises(UnauthorizedError) as dead:
        world.post(token)
    assert dead.value.code == "PASSPORT_REVOKED"
    assert world.stack.services.list() == []
    with pytest.raises(NotFoundError):
        world.stack.services.disconnect(world.connection)


def test_credentials_direct(world: World) -> None:
    agent = world.agent("logged", credential_access="direct")
    token = world.passport(agent.id).token
    by_provider = world.stack.credentials.get("slack", passport_token=token)
    assert (by_provider.provider, by_provider.credential, by_provider.credentials) == ("slack", SLACK_TOKEN, None)
    by_connection = world.stack.credentials.get_by_connection(world.connection, passport_token=token)
    assert by_connection == by_provider
    entries = world.stack.audit.list(passport_jti=world.stack.passports.list_active(agent_id=agent.id)[0]["jti"])["entries"]
    assert [entry["action"] for entry in entries].count("credential.retrieve") == 2


def test_credentials_map_and_operator_key(world: World) -> None:
    fields = {"username": "ada", "password": "pw-0123456789"}
    connection = world.custom("mapped", "mapped.example", fields)
    credential = world.stack.credentials.get_by_connection(connection)
    assert (credential.provider, credential.credential, credential.credentials) == ("mapped", None, fields)
    assert world.stack.credentials.get("mapped") == credential


def test_credentials_proxy_only(world: World) -> None:
    agent = world.agent("logged", credential_access="proxy_only")
    token = world.passport(agent.id).token
    for read in (
        lambda: world.stack.credentials.get("slack", passport_token=token),
        lambda: world.stack.credentials.get_by_connection(world.connection, passport_token=token),
    ):
        with pytest.raises(ForbiddenError) as refused:
            read()
        assert refused.value.code == "CREDENTIAL_ACCESS_DENIED"
        assert SLACK_TOKEN not in str(refused.value) + str(refused.value.details)


def test_credentials_outside_scope(world: World) -> None:
    connection = world.custom("other", "other.example")
    agent = world.agent("logged", credential_access="direct")
    world.grant(agent.id, connection, ["use"])
    token = world.passport(agent.id, services=("slack",)).token
    with pytest.raises(ForbiddenError):
        world.stack.credentials.get("other", passport_token=token)
    assert [event["severity"] for event in world.events(agent.id, "credential_outside_scope")] == ["warning"]


def test_credentials_unknown(world: World) -> None:
    with pytest.raises(NotFoundError):
        world.stack.credentials.get("github")
    with pytest.raises(NotFoundError):
        world.stack.credentials.get_by_connection("scon_unknown")


def test_credential_burst(world: World) -> None:
    agent = world.agent("logged", credential_access="direct")
    token = world.passport(agent.id).token
    for _ in range(10):
        world.stack.credentials.get("slack", passport_token=token)
    assert world.events(agent.id, "credential_burst") == []
    world.stack.credentials.get("slack", passport_token=token)
    assert [event["severity"] for event in world.events(agent.id, "credential_burst")] == ["warning"]


def test_a_secret_never_comes_back(world: World) -> None:
    agent = world.agent("logged")
    answer = world.stack.proxy.get("slack", "https://slack.com/leak", passport_token=world.passport(agent.id).token)
    assert SLACK_TOKEN in world.slack.requests[-1]["headers"]["authorization"]
    assert SLACK_TOKEN not in str(answer.headers) + str(answer.body)
    assert "[REDACTED]" in answer.body["seen"]
    assert "set-cookie" not in {name.lower() for name in answer.headers}


def test_a_secret_never_goes_elsewhere(world: World) -> None:
    world.mock.control("upstreams", {"host": "evil.example", "url": world.slack.url})
    agent = world.agent("logged")
    with pytest.raises(ForbiddenError) as refused:
        world.stack.proxy.post(
            "slack",
            POST_MESSAGE.replace("slack.com", "evil.example"),
            body={},
            passport_token=world.passport(agent.id).token,
        )
    assert refused.value.code == "PROXY_HOST_NOT_ALLOWED"
    assert world.slack.requests == []
