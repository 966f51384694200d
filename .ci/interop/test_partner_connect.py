"""Connect: a partner acts in accounts that are its customers' own, as far as they allow."""

from __future__ import annotations

import re

import httpx
import pytest
from getstack import ForbiddenError, NotFoundError, Stack, StackError, UnauthorizedError

from conftest import POST_MESSAGE, SLACK_SCOPES, World


def test_new_account(world: World) -> None:
    connect = world.stack.partner_connect
    res = connect.connect("ada@example.com", external_customer_id="c-1", scopes=None, providers=["slack"])
    assert res["status"] == "active"
    assert re.fullmatch(r"sk_grant_\w+", res["grant_token"])
    assert "grant_token" not in connect.connect("ada@example.com")
    grant = res["grant_id"]

    with Stack(api_key=res["grant_token"], base_url=world.mock.url) as theirs:
        agent = theirs.agents.register(name="bot")
        connection = theirs.services.connect(service_id="slack", oauth_token="xoxb-ada", scopes=SLACK_SCOPES)["id"]
        theirs.services.grant_agent_access(agent_id=agent.id, service_connection_id=connection, scopes=SLACK_SCOPES)
        with theirs.passports.mission(agent.id, "Answer", ["slack"]) as mission:
            theirs.proxy.post("slack", POST_MESSAGE, body={"text": "hello"}, passport_token=mission.token)
        assert world.slack.requests[-1]["headers"]["authorization"] == "Bearer xoxb-ada"
        with pytest.raises(ForbiddenError):
            theirs.services.connect(service_id="github", oauth_token="x", scopes=["repo"])
        with pytest.raises(ForbiddenError):
            theirs.audit.list()
        with pytest.raises(NotFoundError):
            world.stack.agents.get(agent.id)

        rotated = connect.rotate_token(grant)
        with pytest.raises(UnauthorizedError):
            theirs.agents.list()
    with Stack(api_key=rotated["grant_token"], base_url=world.mock.url) as theirs:
        assert [a.id for a in theirs.agents.list()] == [agent.id]
        assert [c["grant_id"] for c in connect.list_connections()] == [grant]
        assert connect.get_connection(grant)["status"] == "active"
        ended = connect.revoke_connection(grant)
        assert (ended["status"], ended["connections_revoked"]) == ("revoked", 1)
        with pytest.raises(UnauthorizedError):
            theirs.agents.list()
    assert connect.get_connection(grant)["status"] == "revoked"


def test_consent(world: World) -> None:
    connect = world.stack.partner_connect
    res = connect.connect("operator@example.com", scopes=["agents:read"])
    assert res["status"] == "pending_consent"
    with Stack(api_key=res["grant_token"], base_url=world.mock.url) as theirs:
        with pytest.raises(UnauthorizedError):
            theirs.agents.list()
        assert httpx.get(res["consent_url"]).status_code == 200
        assert httpx.post(res["consent_url"] + "/approve").status_code == 200
        world.agent()
        assert theirs.agents.list() == [], "what the account has is not the grant's"
        with pytest.raises(ForbiddenError) as scope:
            theirs.agents.register(name="bot")
        assert scope.value.details["allowed"] == "agents:write"


def test_refusals(world: World) -> None:
    connect = world.stack.partner_connect
    for bad in ({"email": "nobody"}, {"email": "a@example.com", "scopes": ["everything"]}):
        with pytest.raises(StackError) as refused:
            connect.connect(**bad)  # type: ignore[arg-type]
        assert refused.value.status_code == 400
    for call in (connect.get_connection, connect.revoke_connection, connect.rotate_token):
        with pytest.raises(NotFoundError):
            call("pgr_none")
