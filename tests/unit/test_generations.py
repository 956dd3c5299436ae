"""Generations: numbered statements, and the word of memory that says which one every worker serves."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from tableside.errors import ContractBroken, ModelNotReady
from tableside.process.generation_words import GenerationWords
from tableside.serving import generations, switching
from tableside.serving.generations import FOLDER, KEEP, Generations
from tableside.serving.statement import ModelStatement, Statement
from tests.conftest import MakeSettings
from tests.small_disks import run_on_small_disk

WANTED = Statement(0, {"iris": ModelStatement("[aliases]\nchampion = 1\n", (1,), {"champion": 1})}, "test", 1.0)


def test_a_proposal_is_served_after_its_switch(tmp_path: Path) -> None:
    """Its number is one more than any before; other processes read it from the same folder."""
    mine, others = Generations.open(tmp_path), Generations.open(tmp_path)
    assert (mine.current().generation, others.words.proposed) == (0, 0)
    first = mine.propose(WANTED)
    assert (first.generation, others.words.proposed, others.words.current) == (1, 1, 0)
    assert others.read(1) == first
    mine.commit(1)
    assert (others.words.current, others.current()) == (1, first)
    assert mine.propose(WANTED).generation == 2


def test_what_root_proposes_belongs_to_the_user_of_the_workers(tmp_path: Path) -> None:
    """A command that root runs writes statements that the workers can read: the files belong to the folder's owner."""
    made = Generations.open(tmp_path)
    if os.geteuid() == 0:
        os.chown(made.folder, 12345, 12345)
    made.propose(WANTED)
    owner = made.folder.stat()
    for file in (made.folder / "0000000001.json", made.folder / ".spare"):
        assert (file.stat().st_uid, file.stat().st_gid) == (owner.st_uid, owner.st_gid), file


def test_a_proposal_that_is_given_up_is_nothing(tmp_path: Path) -> None:
    """Workers see a newer number without a statement, and no later proposal has the number of the old one."""
    made = Generations.open(tmp_path)
    made.propose(WANTED)
    made.give_up()
    with pytest.raises(ContractBroken, match="generation 2: No such file"):
        made.read(made.words.proposed)
    assert made.propose(WANTED).generation == 3


def test_old_statements_are_removed(tmp_path: Path) -> None:
    """The newest KEEP stay beside the one that is served."""
    made = Generations.open(tmp_path)
    for _ in range(KEEP + 5):
        last = made.propose(WANTED).generation
        made.commit(last)
    assert len(list((tmp_path / FOLDER).glob("0*.json"))) == KEEP + 1
    assert made.current().generation == last


def test_numbers_of_an_earlier_run_count(tmp_path: Path) -> None:
    """Numbers are compared as numbers, and files that are no statements do not count."""
    (tmp_path / FOLDER).mkdir()
    for name in ("9.json", "10.json", "refused.0.json", ".draft"):
        (tmp_path / FOLDER / name).write_text("{}")
    assert Generations.open(tmp_path).propose(WANTED).generation == 11


def test_a_statement_that_was_lost_is_an_error(tmp_path: Path) -> None:
    """It is lost when its file is gone, or is none."""
    made = Generations.open(tmp_path)
    made.commit(made.propose(WANTED).generation)
    for break_it in (lambda file: file.write_text("[]"), Path.unlink):
        break_it(tmp_path / FOLDER / "0000000001.json")
        with pytest.raises(ContractBroken):
            made.current()


def test_one_process_switches_at_a_time(tmp_path: Path) -> None:
    """Another one waits, and is told after its time limit."""
    mine, other = Generations.open(tmp_path), Generations.open(tmp_path)
    with mine.switch_lock(1.0):
        assert other.is_switching
        with pytest.raises(ModelNotReady, match="another change of the models"), other.switch_lock(0.05):
            raise AssertionError("the lock is held")
    assert not other.is_switching
    with other.switch_lock(1.0):
        pass


def test_an_operator_is_told_what_to_do(make_settings: MakeSettings, tmp_path: Path) -> None:
    """A run folder that cannot be written is named, with the reason."""
    settings = make_settings(tmp_path / "models", tmp_path / "run")
    (tmp_path / "run" / FOLDER).write_text("")
    with pytest.raises(ModelNotReady, match=r"generations cannot be written \(.*\)\. Make room on disk"):
        switching.switch(settings, "test")


def test_words_of_slots(tmp_path: Path) -> None:
    """A worker takes part from its first load on, and its answer holds for one generation only."""
    words, others = GenerationWords.open(tmp_path), GenerationWords.open(tmp_path)
    words.begin(3)
    assert others.serving({3, 4}) == {}
    words.serves(3, 7)
    assert others.serving({3, 4}) == {3: os.getpid()}
    assert others.answer_of(3, 8) is None
    words.prepared(3, 8, refused=False)
    assert (others.answer_of(3, 8), others.answer_of(3, 9)) == (False, None)
    words.prepared(3, 9, refused=True)
    assert (others.answer_of(3, 9), others.generation_of(3)) == (True, 7)
    words.begin(3)
    assert (others.answer_of(3, 9), others.serving({3})) == (None, {})


def test_a_number_above_the_last_slot_takes_no_part(tmp_path: Path) -> None:
    """A worker without a slot has its process id as its number."""
    words = GenerationWords.open(tmp_path)
    for act in (words.begin, lambda slot: words.serves(slot, 1), lambda slot: words.prepared(slot, 1, False)):
        act(424242)
    assert words.serving({424242}) == {}


ON_A_FULL_DISK = """
import sys
from pathlib import Path
from tableside.serving.generations import Generations
from tableside.serving.statement import Statement
from tests.small_disks import fill
folder = Path(sys.argv[1])
made = Generations.open(folder)
made.commit(made.propose(Statement()).generation)
fill(folder)
made.commit(made.propose(Statement()).generation)
print(made.current().generation, Generations.open(folder).words.current)
"""


@pytest.mark.processes
def test_a_full_disk_stops_no_switch(tmp_path: Path) -> None:
    """The words and the next statement have their space before the disk is full."""
    ended = run_on_small_disk(ON_A_FULL_DISK, tmp_path, "512k")
    assert (ended.returncode, ended.stdout) == (0, "2 2\n"), ended.stderr


def test_writers_at_once_get_their_own_numbers(tmp_path: Path) -> None:
    """Each holds the lock, and sees what the one before has switched to."""
    numbers: list[int] = []

    def work() -> None:
        for _ in range(5):
            made = Generations.open(tmp_path)
            with made.switch_lock(60):
                number = made.propose(WANTED).generation
                made.commit(number)
                numbers.append(number)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert numbers == list(range(1, 41))
    assert generations.newest(tmp_path / FOLDER) == 40
