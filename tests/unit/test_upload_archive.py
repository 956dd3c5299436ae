"""An uploaded archive is unpacked as ordinary files below one folder, and no more of it than is allowed."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tableside.errors import RequestRejected, TooLarge
from tableside.uploads import archive

pytestmark = pytest.mark.no_greenlets
LIMIT = 1 << 20
Change = Callable[[tarfile.TarInfo], None]


def member(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.size, made.linkname = kind, size, link
    return made


def tar_of(*members: tarfile.TarInfo, kind: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind) as written:
        for each in members:
            written.addfile(each, io.BytesIO(b"x" * each.size) if each.isreg() else None)
    return out.getvalue()


def unpack(content: bytes, tmp_path: Path, limit_bytes: int = LIMIT) -> Path:
    (tmp_path / "sent").write_bytes(content)
    (tmp_path / "into").mkdir()
    archive.unpack(tmp_path / "sent", tmp_path / "into", limit_bytes)
    return archive.content_folder(tmp_path / "into")


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
@pytest.mark.parametrize("prefix", ["", "./", "3/", "wine/3/"])
def test_files_are_unpacked(tmp_path: Path, compress: Callable[[bytes], bytes], prefix: str) -> None:
    """Plain and with gzip, with the folder's name before the files or not; modes and owners are not taken over."""
    sent = [member(f"{prefix}contract.json", size=3), member(f"{prefix}code/own.py", size=700_000)]
    sent[0].mode, sent[0].uid = 0o4777, 12345
    folder = unpack(compress(tar_of(*sent)), tmp_path)
    assert (folder / "contract.json").read_bytes() == b"xxx"
    assert (folder / "code" / "own.py").stat().st_size == 700_000
    assert (folder / "contract.json").stat().st_mode & 0o7133 == 0


@pytest.mark.parametrize(
    "bad",
    [
        member("../out"), member("a/../../out"), member("/etc/out"), member("//out"), member(".hidden"), member("a/.b"),
        member("a\\b\x07"), member("-rf"), member("", tarfile.REGTYPE), member("link", tarfile.SYMTYPE, link="/etc"),
        member("link", tarfile.SYMTYPE, link="contract.json"), member("hard", tarfile.LNKTYPE, link="contract.json"),
        member("pipe", tarfile.FIFOTYPE), member("device", tarfile.CHRTYPE), member("block", tarfile.BLKTYPE),
        member("../folder", tarfile.DIRTYPE), member("a//b"),
    ],
)  # fmt: skip
def test_what_is_no_ordinary_file_of_the_folder_is_refused(tmp_path: Path, bad: tarfile.TarInfo) -> None:
    """Links, devices, absolute and hidden names, and names with `..`: nothing is written outside of the folder."""
    with pytest.raises(RequestRejected):
        unpack(tar_of(member("contract.json", size=1), bad), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["into", "sent"]
    assert [path.name for path in (tmp_path / "into").iterdir()] == ["contract.json"]


def test_a_file_cannot_be_sent_twice(tmp_path: Path) -> None:
    """The first one may have been checked already."""
    with pytest.raises(RequestRejected, match="twice"):
        unpack(tar_of(member("a", size=1), member("a", size=2)), tmp_path)


def test_an_archive_is_no_bomb(tmp_path: Path) -> None:
    """Sizes count before they are written; what gzip unpacks counts as it comes; so does the number of files."""
    with pytest.raises(TooLarge, match="max_upload_bytes"):
        unpack(tar_of(member("a", size=600), member("b", size=600)), tmp_path, 1000)
    assert [path.name for path in (tmp_path / "into").iterdir()] == ["a"]


def test_a_gzip_bomb_in_the_heads_is_cut_off(tmp_path: Path) -> None:
    """A pax head of many megabytes takes no more memory than the limit, however small it is compressed."""
    heavy = member("a", size=1)
    heavy.pax_headers = {"comment": "x" * (20 << 20)}
    sent = gzip.compress(tar_of(heavy))
    assert len(sent) < 50_000
    with pytest.raises(TooLarge):
        unpack(sent, tmp_path)


def test_an_archive_has_a_number_of_files_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes an inode, and an entry of a folder."""
    monkeypatch.setattr(archive, "MAX_MEMBERS", 2)
    with pytest.raises(RequestRejected, match="more than 2 files"):
        unpack(tar_of(member("a"), member("b"), member("c")), tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"PK\x03\x04zip", b"\x1f\x8bxx", b"x" * 2000, gzip.compress(b"no tar" * 300)],
    ids=["zip", "cut-off-gzip", "text", "gzip-of-text"],
)
def test_what_is_no_tar_file_is_refused(tmp_path: Path, content: bytes) -> None:
    """With a line that says how to make one."""
    with pytest.raises(RequestRejected, match=r"tar -C FOLDER"):
        unpack(content, tmp_path)


@pytest.mark.parametrize("cut", [700, 1500])
def test_a_tar_file_that_is_cut_off_is_refused(tmp_path: Path, cut: int) -> None:
    """No file is taken that is shorter than its head says."""
    with pytest.raises(RequestRejected, match="cut off"):
        unpack(tar_of(member("a", size=1000), member("b", size=1000))[:cut], tmp_path)
