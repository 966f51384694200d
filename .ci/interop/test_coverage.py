"""Runs last: the suite has passed every parameter of every method, and seen an answer of every route."""

from __future__ import annotations

from judge import COVERAGE


def test_every_method_and_parameter() -> None:
    gaps = COVERAGE.missing()
    assert not gaps, "\n".join(gaps)
