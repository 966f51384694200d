"""The credential proxy: what reaches the provider, what comes back, and writes that happen once."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from getstack import ForbiddenError, StackError, UnauthorizedError

from conftest import POST_MESSAGE, SLACK_TOKEN, World

API = "https://slack.com/api/"
OPERATION = "op-0123456789-abcdefghij_KLMN"


def logged_token(world: World, **fields: Any) -> str:
    token: str = world.passport(world.agent("logged").id, **fields).token
    return token


def test_what_the_provider_receives(world: World) -> None:
    answer = world.stack.proxy.request(
        "slack",
        API + "chat.postMessage?pretty=1",
        "POST",
        headers={"Authorization": "Bearer mine", "Cookie": "a=b", "X-Trace": "t-1", "X-Api-Key": "k", "X-Stack-Thing": "s"},
        body={"channel": "#support", "text": "Grüezi <&>"},
        query={"as": "bot user"},
        passport_token=logged_token(world),
        approval_id="apr_not_needed_here",
        authority_request_id=OPERATION,
        on_operation_id=(seen := []).append,
    )
    assert seen == [OPERATION] and answer.operation_id == OPERATION
    assert (answer.status, answer.ok(), answer.json()["ok"]) == (200, True, True)
    assert {name.lower() for name in answer.headers} >= {"content-type"}
    received = world.slack.requests[-1]
    assert (received["method"], received["path"]) == ("POST", "/api/chat.postMessage")
    assert received["query"] == {"pretty": "1", "as": "bot user"}
    assert world.slack.json() == {"channel": "#support", "text": "Grüezi <&>"}
    headers = received["headers"]
    assert headers["authorization"] == f"Bearer {SLACK_TOKEN}"
    assert headers["host"] == "slack.com"
    assert headers["x-trace"] == "t-1"
    assert headers["content-type"].startswith("application/json")
    assert not {"cookie", "x-api-key", "x-passport-token", "x-intent-approval-id"} & set(headers)
    assert not [name for name in headers if name.startswith("x-stack-")]


@pytest.mark.parametrize("verb", ["get", "post", "put", "patch", "delete"])
def test_verbs(world: World, verb: str) -> None:
    fields = {} if verb in ("get", "delete") else {"body": {"n": 1}}
    answer = getattr(world.stack.proxy, verb)("slack", API + "things", passport_token=logged_token(world), **fields)
    assert answer.status == 200
    assert world.slack.requests[-1]["method"] == verb.upper()
    assert (answer.operation_id is None) == (verb == "get")


def test_method_in_lower_case_or_unknown(world: World) -> None:
    token = logged_token(world)
    assert world.stack.proxy.request("slack", API + "x", "get", passport_token=token).status == 200
    assert world.slack.paths() == ["GET /api/x"]
    with pytest.raises(StackError) as unknown:
        world.stack.proxy.request("slack", API + "x", "TRACE", passport_token=token)
    assert (unknown.value.status_code, unknown.value.code) == (400, "INVALID_REQUEST")


def test_bodies(world: World) -> None:
    token = logged_token(world)
    proxy = world.stack.proxy
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    proxy.post("slack", API + "form", headers=form, body={"a": "1", "b": "x y"}, passport_token=token)
    assert world.slack.requests[-1]["raw"] in (b"a=1&b=x+y", b"a=1&b=x%20y")
    proxy.post("slack", API + "text", headers={"Content-Type": "text/plain"}, body="as it is", passport_token=token)
    assert world.slack.requests[-1]["raw"] == b"as it is"
    proxy.post("slack", API + "list", body=[1, {"two": None}], passport_token=token)
    assert world.slack.json() == [1, {"two": None}]
    assert proxy.get("slack", "https://slack.com/text", passport_token=token).body == "grüezi"
    binary = proxy.get("slack", "https://slack.com/binary", passport_token=token)
    assert binary.body == {"base64": "//4AAQ=="}
    assert binary.headers["x-stack-body-encoding"] == "base64"


def test_upstream_errors_are_data(world: World) -> None:
    answer = world.stack.proxy.get("slack", "https://slack.com/unavailable", passport_token=logged_token(world))
    assert (answer.status, answer.ok(), answer.body["error"]) == (503, False, "unavailable")


def test_redirects(world: World) -> None:
    token = logged_token(world)
    assert world.stack.proxy.get("slack", "https://slack.com/moved", passport_token=token).status == 200
    assert world.slack.paths() == ["GET /moved", "GET /api/auth.test"]
    answer = world.stack.proxy.get("slack", "https://slack.com/moved-away", passport_token=token)
    assert answer.status == 302, "another host is not followed"
    assert world.slack.paths()[2:] == ["GET /moved-away"]


@pytest.mark.parametrize("url", ["/relative", "ftp://slack.com/x", "https:///x", "https://user:pw@slack.com/x"])
def test_bad_urls(world: World, url: str) -> None:
    with pytest.raises(StackError) as refused:
        world.stack.proxy.get("slack", url, passport_token=logged_token(world))
    assert (refused.value.status_code, refused.value.code) == (400, "INVALID_URL")
    assert "pw@" not in str(refused.value)


def test_unmapped_host(world: World) -> None:
    connection = world.custom("other", "other.example")
    agent = world.agent("logged", granted=False)
    world.grant(agent.id, connection, ["use"])
    token = world.passport(agent.id, services=("other",)).token
    with pytest.raises(StackError) as refused:
        world.stack.proxy.get("other", "https://nowhere.example/x", passport_token=token)
    assert (refused.value.status_code, refused.value.code) == (502, "UPSTREAM_UNREACHABLE")


def test_no_or_bad_passport(world: World) -> None:
    with pytest.raises(UnauthorizedError):
        world.post("")
    with pytest.raises(UnauthorizedError):
        world.post("not.a.token")
    assert world.slack.requests == []


@pytest.mark.parametrize(("mode", "severity", "lives"), [("enforced", "critical", False), ("logged", "warning", True)])
def test_scope_refusal(world: World, mode: str, severity: str, lives: bool) -> None:
    world.mock.control("upstreams", {"host": "api.github.com", "url": world.slack.url})
    connection = world.stack.services.connect(service_id="github", oauth_token="gho_0123456789abcdef", scopes=["repo"])["id"]
    agent = world.agent(mode)
    world.grant(agent.id, connection, ["repo"])
    token = world.passport(agent.id, services=("slack",)).token
    with pytest.raises(ForbiddenError) as refused:
        world.stack.proxy.get("github", "https://api.github.com/user", passport_token=token)
    assert refused.value.code == "FORBIDDEN"
    assert world.slack.requests == []
    (event,) = world.events(agent.id, "credential_outside_scope")
    assert event["severity"] == severity
    assert event["metadata"]["intent_services"] == ["slack"]
    assert set(event["metadata"]["granted_providers"]) <= {"slack", "github"}
    if lives:
        assert world.post(token).status == 200
    else:
        with pytest.raises(UnauthorizedError) as dead:
            world.post(token)
        assert dead.value.code == "PASSPORT_REVOKED"


def test_constraints(world: World) -> None:
    only_support = {"path": "body.channel", "op": "eq", "value": "#support"}
    scope = {"service_connection_id": world.connection, "scopes": ["chat:write"], "constraints": [only_support]}
    agent = world.agent("logged")
    token = world.passport(agent.id, scopes=[scope]).token
    assert world.post(token).status == 200
    with pytest.raises(ForbiddenError):
        world.stack.proxy.post("slack", POST_MESSAGE, body={"channel": "#board", "text": "x"}, passport_token=token)
    assert len(world.slack.requests) == 1
    assert len(world.events(agent.id, "constraint_violation")) == 1


def test_data_flow_wall(world: World) -> None:
    tracker = world.custom("tracker", "tracker.example")
    agent = world.agent("logged")
    world.grant(agent.id, tracker, ["use"])
    scopes = [
        {"service_connection_id": tracker, "scopes": ["use"]},
        {"service_connection_id": world.connection, "scopes": ["chat:write"], "allow_data_from": []},
    ]
    token = world.passport(agent.id, services=("slack", "tracker"), scopes=scopes).token
    read = world.stack.proxy.get("tracker", "https://tracker.example/issue", passport_token=token)
    with pytest.raises(ForbiddenError) as refused:
        world.post(token, text=f"Fwd: {read.body['title']}")
    assert refused.value.code == "DATA_FLOW_BLOCKED"
    assert len(world.events(agent.id, "data_flow_violation")) == 1
    assert world.post(token, text="nothing from there").status == 200


def test_usage_counts(world: World) -> None:
    token = logged_token(world)
    before = world.stack.proxy.usage()
    world.post(token)
    after = world.stack.proxy.usage()
    assert after["used"] == before["used"] + 1
    assert after["tier"] == "enterprise"


# Operations.


def test_replay(world: World) -> None:
    token = logged_token(world)
    first = world.post(token, authority_request_id=OPERATION)
    again = world.post(token, authority_request_id=OPERATION)
    assert len(world.slack.requests) == 1, "the upstream is called once"
    assert (again.status, again.body) == (first.status, first.body)
    with pytest.raises(StackError) as reused:
        world.post(token, text="another text", authority_request_id=OPERATION)
    assert (reused.value.status_code, reused.value.code) == (409, "OPERATION_ID_REUSED")
    assert reused.value.operation_id == OPERATION
    assert len(world.slack.requests) == 1

    operation = world.stack.proxy.get_operation(OPERATION, passport_token=token)
    assert (operation["operation_id"], operation["provider"], operation["method"]) == (OPERATION, "slack", "POST")
    assert (operation["delivery_state"], operation["replay_state"]) == ("response_received", "available")
    assert operation["accounting_state"] == "committed"
    assert operation["dispatched_at"] and operation["response_received_at"]
    assert operation.get("response") is None
    full = world.stack.proxy.get_operation(OPERATION, passport_token=token, include_response=True)
    assert full["response"]["status"] == 200
    assert full["response"]["body"] == first.body


def test_replay_expires(world: World) -> None:
    agent = world.agent("logged")
    world.post(world.passport(agent.id).token, authority_request_id=OPERATION)
    world.mock.advance(24 * 3600 + 1)
    token = world.passport(agent.id).token
    operation = world.stack.proxy.get_operation(OPERATION, passport_token=token, include_response=True)
    assert (operation["delivery_state"], operation["replay_state"]) == ("response_received", "expired")
    assert operation.get("response") is None
    with pytest.raises(StackError) as late:
        world.post(token, authority_request_id=OPERATION)
    assert late.value.status_code == 409
    assert len(world.slack.requests) == 1, "a write whose answer is gone still happened"


def test_unknown_operation(world: World) -> None:
    with pytest.raises(StackError) as missing:
        world.stack.proxy.get_operation("never-seen-0123456789-abcdef", passport_token=logged_token(world))
    assert missing.value.status_code == 404


def test_operation_in_progress(world: World) -> None:
    token = logged_token(world)
    answers: list[Any] = []

    def write() -> Any:
        return world.stack.proxy.post(
            "slack", "https://slack.com/hold", body={}, passport_token=token, authority_request_id=OPERATION
        )

    thread = threading.Thread(target=lambda: answers.append(write()))
    thread.start()
    try:
        assert world.slack.entered.wait(timeout=10), "the first write never reached the upstream"
        with pytest.raises(StackError) as busy:
            write()
        assert (busy.value.status_code, busy.value.code) == (409, "OPERATION_IN_PROGRESS")
        operation = world.stack.proxy.get_operation(OPERATION, passport_token=token)
        assert operation["delivery_state"] == "dispatching"
    finally:
        world.slack.release.set()
        thread.join(timeout=10)
    assert [answer.status for answer in answers] == [200]
    assert world.slack.paths() == ["POST /hold"]


def test_outcome_unknown(world: World) -> None:
    token = logged_token(world)
    world.mock.control("faults", {"method": "POST", "path": "upstream:slack.com", "times": 1, "close": "after"})
    with pytest.raises(StackError) as lost:
        world.post(token, authority_request_id=OPERATION)
    assert lost.value.status_code >= 500
    operation = world.stack.proxy.get_operation(OPERATION, passport_token=token)
    assert operation["delivery_state"] == "outcome_unknown"
    with pytest.raises(StackError) as again:
        world.post(token, authority_request_id=OPERATION)
    assert (again.value.status_code, again.value.code) == (409, "OPERATION_OUTCOME_UNKNOWN")
    assert len(world.slack.requests) == 1, "a write that may have happened is not sent twice"


def test_never_dispatched_may_be_sent_again(world: World) -> None:
    token = logged_token(world)
    world.mock.control("faults", {"method": "POST", "path": "upstream:slack.com", "times": 1, "close": "before"})
    with pytest.raises(StackError) as lost:
        world.post(token, authority_request_id=OPERATION)
    assert lost.value.status_code == 502
    assert world.slack.requests == []
    assert world.post(token, authority_request_id=OPERATION).status == 200
    assert len(world.slack.requests) == 1


def test_bad_operation_id_never_leaves(world: World) -> None:
    before = len(world.judge.calls)
    with pytest.raises(ValueError, match="22-256"):
        world.post("x", authority_request_id="short")
    assert len(world.judge.calls) == before
