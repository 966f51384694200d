"""PII configuration: what the LLM gateway redacts by."""

from __future__ import annotations

from typing import Any

import pytest
from getstack import ForbiddenError, StackError

from conftest import World


def loosened(world: World, call: Any) -> dict[str, Any]:
    """Make a change that needs a human, with the human's approval."""
    with pytest.raises(ForbiddenError) as refused:
        call(None)
    assert refused.value.code == "GOVERNANCE_APPROVAL_REQUIRED"
    approval = refused.value.details["approval_id"]
    world.mock.approve(approval)
    changed: dict[str, Any] = call(approval)
    return changed


def test_config(world: World) -> None:
    config = world.stack.pii_config
    begin = config.get()
    assert begin == {"configured": False, "enabled": True, "threshold": 0.4, "countries": None}
    tighter = config.update(threshold=0.2, enabled=True)
    assert (tighter["configured"], tighter["threshold"], tighter["countries"]) == (True, 0.2, None)
    assert config.get() == tighter
    narrower = loosened(world, lambda approval: config.update(governance_approval_id=approval, countries=["SE", "US"]))
    assert narrower["countries"] == ["SE", "US"] and narrower["threshold"] == 0.2
    assert config.update(countries=None)["countries"] is None, "null clears it, and all countries are more"
    cleared = loosened(world, lambda approval: config.update(approval, threshold=None))
    assert cleared["threshold"] == 0.4
    off = loosened(world, lambda approval: config.update(approval, enabled=False))
    assert off["enabled"] is False
    assert loosened(world, lambda approval: config.reset(governance_approval_id=approval)) == begin
    assert config.get() == begin


@pytest.mark.parametrize(
    "fields",
    [
        {"threshold": 1.5},
        {"threshold": "0.4"},
        {"countries": ["se"]},
        {"countries": ["XX"]},
        {"enabled": 1},
        {"kinds": []},
    ],
)
def test_bad_values(world: World, fields: dict[str, Any]) -> None:
    with pytest.raises(StackError) as refused:
        world.stack.pii_config.update(**fields)
    assert (refused.value.status_code, refused.value.code) == (400, "INVALID_REQUEST")
    assert refused.value.details["field"] == f"body.{next(iter(fields))}"
    assert world.stack.pii_config.get()["configured"] is False
