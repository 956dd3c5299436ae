"""Python looks for garbage rarely while libraries are imported, and as usual afterwards."""

from __future__ import annotations

import gc

import pytest

from tableside.process.long_lived import few_collections


def test_imports_start_no_full_collection() -> None:
    """A hundred thousand objects, which an import of scikit-learn makes, start none; 700 would do so otherwise."""
    before = [generation["collections"] for generation in gc.get_stats()]
    with few_collections():
        kept = [[] for _ in range(100_000)]  # type: ignore[var-annotated]
        within = [generation["collections"] for generation in gc.get_stats()]
    assert within == before
    assert len(kept) == 100_000


def test_an_error_ends_it_too() -> None:
    """What counts as usual comes back after a command that failed."""
    before = gc.get_threshold()
    with pytest.raises(ImportError), few_collections():
        assert gc.get_threshold() != before
        raise ImportError
    assert gc.get_threshold() == before
