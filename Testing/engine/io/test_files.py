"""Files are replaced at once or not at all, and have one checksum."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from samconvex.errors import InputError
from samconvex.io.files import discard_half_written, file_sha256, replaced
from samconvex.io.images import read_grid, read_labels, read_volume
from samconvex.io.points import read_points
from samconvex.lesions.files import read_lesions
from samconvex.space.transforms import Transform
from samconvex.weights.checkpoints import read_checkpoint


def test_a_file_is_replaced_once_it_is_complete(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replaced(path) as temporary:
        temporary.write_text("new")
        assert path.read_text(encoding="utf-8") == "old"
    assert path.read_text(encoding="utf-8") == "new" and list(tmp_path.iterdir()) == [path]


def test_after_an_error_the_old_file_is_there_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(OSError, match="full"), replaced(path) as temporary:
        temporary.write_text("ne")
        raise OSError("full")
    assert path.read_text(encoding="utf-8") == "old" and list(tmp_path.iterdir()) == [path]


def test_two_writers_of_a_file_do_not_disturb_each_other(tmp_path):
    path = tmp_path / "a.txt"
    with replaced(path) as first, replaced(path) as second:
        first.write_text("first")
        second.write_text("second")
        assert first != second
    assert path.read_text(encoding="utf-8") == "first" and list(tmp_path.iterdir()) == [path]


def test_a_forced_exit_removes_what_is_half_written(tmp_path):
    writing = replaced(tmp_path / "a.txt")
    writing.__enter__().write_text("ne")
    discard_half_written()
    assert not list(tmp_path.iterdir())
    with pytest.raises(OSError):
        writing.__exit__(None, None, None)


def test_a_checksum_is_that_of_the_bytes_or_of_a_folders_files_by_name(tmp_path):
    (tmp_path / "b").write_bytes(b"two")
    (tmp_path / "a").write_bytes(b"one")
    assert file_sha256(tmp_path / "a") == hashlib.sha256(b"one").hexdigest()
    assert file_sha256(str(tmp_path)) == hashlib.sha256(b"onetwo").hexdigest()


def test_the_engine_replaces_files_and_takes_checksums_in_one_place(repository):
    engine = repository / "SAMConvexRegistration" / "samconvex"
    own = re.compile(r"\.partial\b|os\.replace\(|\.read_bytes\(\)\)\.hexdigest|digest = hashlib\.sha256\(\)")
    found = {str(p.relative_to(engine)) for p in engine.rglob("*.py") if own.search(p.read_text(encoding="utf-8"))}
    # A folder of results is moved file by file, all or none.
    assert found == {"io/files.py", "io/outputs.py"}


_READERS = [read_volume, read_grid, read_labels, read_points, Transform.load, read_lesions, read_checkpoint]


@pytest.mark.parametrize("read", _READERS, ids=lambda read: read.__qualname__)
def test_what_is_no_file_at_hand_is_refused_by_every_reader(tmp_path: Path, read: Callable) -> None:
    (tmp_path / "loop.nii").symlink_to(tmp_path / "loop.nii")
    for name, words in (("x" * 300 + ".nii", "File name too long"), ("loop.nii", "Too many levels")):
        with pytest.raises(InputError, match=rf"could not be opened \({words}"):
            read(tmp_path / name)
    with pytest.raises(InputError, match=r"a\.nii/b\.nii does not exist"):
        (tmp_path / "a.nii").touch()
        read(tmp_path / "a.nii" / "b.nii")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("read", _READERS, ids=lambda read: read.__qualname__)
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path, read: Callable) -> None:
    os.mkfifo(tmp_path / "pipe.nii")
    outcome: list[Exception] = []

    def work() -> None:
        try:
            read(tmp_path / "pipe.nii")
        except Exception as error:
            outcome.append(error)

    # A reader that waits is left behind.
    reader = threading.Thread(target=work, daemon=True)
    reader.start()
    reader.join(20)
    assert outcome and isinstance(outcome[0], InputError) and "pipe.nii is a pipe or a device" in str(outcome[0])
