"""Runs last: the suite has passed every parameter of every method, and seen an answer of every route."""

from __future__ import annotations

from judge import ASYNC_COVERAGE, COVERAGE, JUDGED, async_of, public

METHODS = 217


def test_every_method_and_parameter() -> None:
    gaps = COVERAGE.missing()
    assert not gaps, "\n".join(gaps)
    assert sum(len(public(service)) for service in JUDGED) == METHODS


def test_a_third_of_the_async_client() -> None:
    assert len(ASYNC_COVERAGE.wanted) == METHODS
    called = set(ASYNC_COVERAGE.seen)
    unused = [
        service.__name__
        for service in map(async_of, JUDGED)
        if public(service) and not any(f"{service.__name__}.{name}" in called for name in public(service))
    ]
    assert not unused, f"no method of {', '.join(unused)} was called"
    assert 3 * len(called) >= METHODS, f"{len(called)} of {METHODS} methods were called, which is less than a third"
