"""The reader of metric files gives what prometheus-client's MultiProcessCollector gives."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest, multiprocess
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.utils import floatToGoString

from tableside.telemetry import metric_entries, metric_reader, metrics
from tableside.telemetry.metric_reader import MetricReader

GAUGE_MODES = ("sum", "livesum", "min", "livemin", "max", "livemax", "mostrecent", "livemostrecent")
BUCKETS = (0.0001, 0.5, 1.0, 2.5, 30.0, 16384.0, 1e9, float("inf"))
HELP = "Help \\ with\nlines."
Entry = tuple[str, str, str, dict[str, str], float, float]
"""File without the writer, metric, sample, labels, value, seconds at which it was set."""

label_values = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(
    ["", "\\", '"', "\n", '\\"\n', "ä€😀"]
)
labels = st.dictionaries(st.sampled_from(["model", "version", "stage", "code", "a"]), label_values, max_size=3)
numbers = st.floats(allow_nan=False, allow_infinity=False, width=32).map(lambda number: number + 0.0)  # no -0.0
any_number = st.floats(allow_nan=False)


def counters() -> st.SearchStrategy[list[Entry]]:
    return st.builds(
        lambda name, found, value: [("counter", name, f"{name}_total", found, value, 0.0)],
        st.sampled_from(["ab", "cd_seconds"]), labels, any_number,
    )  # fmt: skip


def gauges() -> st.SearchStrategy[list[Entry]]:
    return st.builds(
        lambda mode, found, value, at_s: [(f"gauge_{mode}", f"g_{mode}", f"g_{mode}", found, value, at_s)],
        st.sampled_from(GAUGE_MODES), labels, numbers, st.sampled_from([0.0, 1.0, 2.0]),
    )  # fmt: skip


def histograms() -> st.SearchStrategy[list[Entry]]:
    def entries(found: dict[str, str], total: float, counts: list[int]) -> list[Entry]:
        bounds = [floatToGoString(bound) for bound in BUCKETS]
        made = [("histogram", "h", "h_sum", found, total, 0.0)]
        return made + [
            ("histogram", "h", "h_bucket", {**found, "le": bound}, float(count), 0.0)
            for bound, count in zip(bounds, counts, strict=True)
        ]

    return st.builds(entries, labels, any_number, st.lists(st.integers(0, 2**40), min_size=8, max_size=8))


def write(folder: Path, writer: object, written: Iterable[Entry], help_text: str = HELP) -> None:
    """Write entries into the files of a writer, with prometheus-client."""
    files: dict[str, MmapedDict] = {}
    for kind, metric, sample, found, value, at_s in written:
        if kind not in files:
            files[kind] = MmapedDict(str(folder / f"{kind}_{writer}.db"))
        files[kind].write_value(mmap_key(metric, sample, list(found), list(found.values()), help_text), value, at_s)
    for file in files.values():
        file.close()


def by_library(folder: Path) -> bytes:
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, path=str(folder))
    return generate_latest(registry)


def families(text: bytes) -> dict[str, list[str]]:
    """The lines of each metric, in the order of the alphabet."""
    found: dict[str, list[str]] = {}
    lines = text.decode().split("\n")
    assert lines.pop() == ""
    for line in lines:
        if line.startswith("# HELP"):
            current = found.setdefault(line, [])
        else:
            current.append(line)
    return {header: sorted(rest) for header, rest in found.items()}


Written = Mapping[int, list[list[Entry]]]
writers = st.dictionaries(
    st.integers(0, 4), st.lists(counters() | gauges() | histograms(), max_size=6), min_size=1, max_size=4
)


@settings(deadline=None)
@given(first=writers, second=writers)
def test_scrapes_equal_those_of_the_library(first: Written, second: Written) -> None:
    """All types and modes, any labels; also when a reader has read the files before they grew and changed."""
    folder = Path(tempfile.mkdtemp())
    try:
        reader = MetricReader(folder)
        for step in (first, second):
            for writer, found in step.items():
                write(folder, writer, [entry for entries in found for entry in entries])
            expected = families(by_library(folder))
            assert families(reader.render(range(5))) == expected
            assert families(reader.render(range(5))) == expected
            assert families(MetricReader(folder).render(range(5))) == expected
        assert reader.take_problems() == []
    finally:
        shutil.rmtree(folder)


def iris(reader: MetricReader, alive: Iterable[int] = (0, 1)) -> dict[str, float]:
    """The values of all samples, by the line before the value."""
    lines = [line for line in reader.render(alive).decode().splitlines() if not line.startswith("#")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def rows(value: float, model: str = "iris") -> Entry:
    return ("counter", "rows", "rows_total", {"model": model}, value, 0.0)


def in_flight(value: float, model: str = "iris") -> Entry:
    return ("gauge_livesum", "in_flight", "in_flight", {"model": model}, value, 0.0)


def test_gauges_of_dead_slots_are_left_out(tmp_path: Path) -> None:
    """Live gauges count while their slot is held. Files of other programs end in no number, and always count."""
    for writer in (0, 1, "nginx"):
        write(tmp_path, writer, [rows(2), in_flight(3)])
    reader = MetricReader(tmp_path)
    assert iris(reader) == {'rows_total{model="iris"}': 6, 'in_flight{model="iris"}': 9}
    assert iris(reader, {1}) == {'rows_total{model="iris"}': 6, 'in_flight{model="iris"}': 6}
    assert iris(reader) == {'rows_total{model="iris"}': 6, 'in_flight{model="iris"}': 9}


def test_a_file_that_was_made_anew_is_read_anew(tmp_path: Path) -> None:
    """A worker that takes a slot makes its gauges' files anew: with other models at the places of the former ones.

    A file system may give the new file the former one's inode, so `MetricFiles` marks each file that it makes.
    """
    reader = MetricReader(tmp_path)
    for model, value in (("abcd", 1), ("efgh", 2), ("ijkl", 3)):
        pid = os.fork()
        if not pid:
            status = 1
            try:
                assert metrics.use_worker_slot(0, tmp_path)
                metrics.make().in_flight.labels(model).set(value)
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
        found = {line: value for line, value in iris(reader).items() if "in_flight" in line}
        assert found == {f'tableside_requests_in_flight{{model="{model}"}}': value}


def test_unused_rows_are_forgotten(tmp_path: Path) -> None:
    """A reader's memory is bounded by what the files have now, not by all that they ever had."""
    reader = MetricReader(tmp_path)
    for generation in range(8):
        write(tmp_path, 0, [in_flight(1, f"model-{generation}-{number}") for number in range(600)])
        assert len(iris(reader)) == 600
        (tmp_path / "gauge_livesum_0.db").unlink()
    assert len(reader) < 2000


@pytest.mark.parametrize(
    ("at", "content", "reason"),
    [
        (0, b"\xf8\xff\xff\x7f", "says that 2147483640 are used"),
        (0, b"\x09\0\0\0", "which is no length"),
        (8, b"\xff\xff\xff\x7f", "the entry at byte 8 has the length"),
        (8, b"\xff\xff\xff\xff", "the entry at byte 8 has the length"),
        (12, b"{", "no readable key"),
        (12, b'["x"', "no readable key"),
    ],
)
def test_a_damaged_file_fails_no_scrape(tmp_path: Path, at: int, content: bytes, reason: str) -> None:
    """It is left out, and the reason is given once. The files of other workers are read."""
    write(tmp_path, 0, [rows(2)])
    write(tmp_path, 1, [rows(4)])
    with (tmp_path / "counter_0.db").open("r+b") as file:
        file.seek(at)
        file.write(content)
    reader = MetricReader(tmp_path)
    assert iris(reader) == {'rows_total{model="iris"}': 4}
    assert iris(reader) == {'rows_total{model="iris"}': 4}
    (problem,) = reader.take_problems()
    assert problem.file == tmp_path / "counter_0.db"
    assert reason in problem.reason
    assert reader.take_problems() == []


def test_a_folder_with_only_damaged_keys_is_empty(tmp_path: Path) -> None:
    """It is the first file that the reader sees, so that there are no lines yet."""
    write(tmp_path, 0, [rows(2)])
    with (tmp_path / "counter_0.db").open("r+b") as file:
        file.seek(12)
        file.write(b'["x"')
    reader = MetricReader(tmp_path)
    assert iris(reader) == {}
    assert len(reader.take_problems()) == 1


def test_entries_before_the_damage_are_kept(tmp_path: Path) -> None:
    """Counters that are still readable don't go back: neither in a reader that knew them, nor in a new one."""
    write(tmp_path, 0, [rows(2), rows(3, "wine")])
    known = MetricReader(tmp_path)
    assert len(iris(known)) == 2
    file = tmp_path / "counter_0.db"
    used = int.from_bytes(file.read_bytes()[:4], "little")
    with file.open("r+b") as opened:
        opened.seek(used)
        opened.write(b"\xff" * 64)
        opened.seek(0)
        opened.write((used + 64).to_bytes(4, "little"))
    for reader in (known, MetricReader(tmp_path)):
        assert iris(reader) == {'rows_total{model="iris"}': 2, 'rows_total{model="wine"}': 3}
        assert len(reader.take_problems()) == 1


def test_files_that_are_being_made_are_empty(tmp_path: Path) -> None:
    """A file without a byte, and one with space but no entries, are no problem. Other names are no metric files."""
    (tmp_path / "counter_0.db").write_bytes(b"")
    (tmp_path / "counter_1.db").write_bytes(bytes(1 << 16))
    for name in ("counter.db", "gauge_all_1.db", "gauge_livesum.db", "notes.txt", "other_1.db", "counter_1.tmp"):
        (tmp_path / name).write_bytes(b"x")
    reader = MetricReader(tmp_path)
    assert reader.render([0, 1]) == b""
    assert reader.take_problems() == []


def test_a_missing_folder_is_empty(tmp_path: Path) -> None:
    """Somebody has removed it under running workers: the scrape says nothing, and the log says why."""
    reader = MetricReader(tmp_path / "missing")
    assert reader.render([0]) == b""
    assert [problem.file for problem in reader.take_problems()] == [tmp_path / "missing"]


def test_a_scrape_decodes_only_what_is_new_since_the_files_were_read_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gunicorn's master reads ahead, and a worker that it forks afterwards scrapes with a copy of its reader."""
    write(tmp_path, 0, [rows(2), rows(3, "wine")])
    write(tmp_path, 1, [rows(4)])
    reader = MetricReader(tmp_path)
    reader.read_ahead([0, 1])
    decoded: list[bytes] = []

    def seen(content: metric_entries.Content, start: int) -> metric_entries.Entries:
        found = metric_entries.entries(content, start)
        decoded.extend(found.keys)
        return found

    monkeypatch.setattr(metric_reader, "entries", seen)
    write(tmp_path, 1, [rows(5, "wine")])
    assert iris(reader) == {'rows_total{model="iris"}': 6, 'rows_total{model="wine"}': 8}
    assert decoded == [mmap_key("rows", "rows_total", ["model"], ["wine"], HELP).encode()]


def test_nothing_is_read_ahead_before_the_first_worker(tmp_path: Path) -> None:
    """It makes the folder: until then a missing one is no problem."""
    reader = MetricReader(tmp_path / "metrics")
    reader.read_ahead([])
    assert reader.take_problems() == []


def test_a_sample_of_two_texts_has_one_line(tmp_path: Path) -> None:
    """The counters of a slot outlive an upgrade that changes their help text; Prometheus refuses a line twice."""
    write(tmp_path, 0, [rows(2)], "Rows.")
    write(tmp_path, 0, [rows(3)], "Rows predicted.")
    assert iris(MetricReader(tmp_path)) == {'rows_total{model="iris"}': 5}


def test_a_gauge_of_another_mode_has_one_line(tmp_path: Path) -> None:
    """While an upgrade replaces the workers, both modes have files."""
    write(tmp_path, 0, [("gauge_livesum", "up", "up", {}, 2.0, 0.0)])
    write(tmp_path, 1, [("gauge_livemax", "up", "up", {}, 3.0, 0.0)])
    assert len(iris(MetricReader(tmp_path))) == 1


def test_totals_are_those_of_the_samples(tmp_path: Path) -> None:
    """Sums by sample, model and version: without buckets, the stage and the code 200 as suffixes."""
    of_iris = {"model": "iris", "version": "1"}
    entries = [
        ("counter", "r", "r_total", {**of_iris, "code": code, "protocol": protocol}, 2.0, 0.0)
        for code in ("200", "400", "500")
        for protocol in ("v1", "v2")
    ]
    entries += [
        ("histogram", "h", "h_sum", {**of_iris, "stage": "decode"}, 0.5, 0.0),
        ("histogram", "h", "h_bucket", {**of_iris, "stage": "decode", "le": "1.0"}, 3.0, 0.0),
        ("histogram", "h", "h_bucket", {**of_iris, "stage": "decode", "le": "+Inf"}, 1.0, 0.0),
        in_flight(1),
    ]
    write(tmp_path, 0, entries)
    write(tmp_path, 1, entries)
    assert MetricReader(tmp_path).totals([0, 1]) == {
        ("r_total:200", "iris", "1"): 8,
        ("r_total", "iris", "1"): 16,
        ("h_sum:decode", "iris", "1"): 1,
        ("h_count:decode", "iris", "1"): 8,
    }
