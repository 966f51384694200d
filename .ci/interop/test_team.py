"""Members of the team: roles, connections, keys that end at once."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from getstack import ForbiddenError, NotFoundError, Stack, StackError, UnauthorizedError

from conftest import SLACK_TOKEN, World


def member_of(world: World, member: dict[str, Any]) -> Stack:
    """Accepts an invitation as the invited person does, and returns an SDK with the key from the page."""
    page = httpx.post(member["invitation_url"])
    assert page.status_code == 200, page.text
    key = re.search(r"sk_live_\w+", page.text)
    assert key
    return Stack(api_key=key.group(), base_url=world.mock.url)


def test_invite_list_update_revoke(world: World) -> None:
    team = world.stack.team
    member = team.invite("ada@example.com", "Ada", role="readonly", allowed_connections=[world.connection])
    assert member["status"] == "invited"
    assert member["role"] == "readonly"
    assert member["allowed_connections"] == [world.connection]
    plain = team.invite("bob@example.com", "Bob")
    assert plain["role"] == "standard"
    assert plain["allowed_connections"] is None
    assert [m["id"] for m in team.list()] == [member["id"], plain["id"]]
    assert all("invitation_url" not in m for m in team.list())

    with member_of(world, member) as theirs:
        assert theirs.credentials.get("slack").credential == SLACK_TOKEN
        with pytest.raises(ForbiddenError) as refused:
            theirs.agents.register(name="bot")
        assert refused.value.details["check"] == "role"
        with pytest.raises(ForbiddenError):
            theirs.audit.list()
        updated = team.update(member["id"], role="standard", allowed_connections=None, name="Ada L.")
        assert (updated["role"], updated["allowed_connections"], updated["name"]) == ("standard", None, "Ada L.")
        theirs.agents.register(name="bot")
        assert team.revoke(member["id"])["status"] == "revoked"
        with pytest.raises(UnauthorizedError):
            theirs.agents.list()


def test_refusals(world: World) -> None:
    team = world.stack.team
    team.invite("ada@example.com", "Ada")
    with pytest.raises(StackError) as twice:
        team.invite("ada@example.com", "Ada")
    assert (twice.value.status_code, twice.value.code) == (409, "MEMBER_EXISTS")
    with pytest.raises(StackError) as bad:
        team.invite("nobody", "Ada")
    assert bad.value.status_code == 400
    for call in (lambda: team.update("mem_none", name="x"), lambda: team.revoke("mem_none")):
        with pytest.raises(NotFoundError):
            call()
