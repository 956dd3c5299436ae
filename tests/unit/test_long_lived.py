"""Python looks for garbage rarely while libraries are imported, and as usual afterwards."""

from __future__ import annotations

import gc

import pytest

from tableside.process.long_lived import few_collections


def test_imports_start_no_collection() -> None:
    """A hundred thousand new objects start no collection; otherwise 2000 do."""
    before = [generation["collections"] for generation in gc.get_stats()]
    with few_collections():
        kept = [[] for _ in range(100_000)]  # type: ignore[var-annotated]
        within = [generation["collections"] for generation in gc.get_stats()]
    assert within == before
    assert len(kept) == 100_000


def test_an_error_ends_it_too() -> None:
    """Python's own number is set again after an error, too."""
    before = gc.get_threshold()
    with pytest.raises(ImportError), few_collections():
        assert gc.get_threshold() != before
        raise ImportError
    assert gc.get_threshold() == before
