"""Files are replaced at once or not at all, and have one checksum."""

from __future__ import annotations

import hashlib
import re

import pytest
from samconvex.io.files import discard_half_written, file_sha256, replaced


def test_a_file_is_replaced_once_it_is_complete(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replaced(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_after_an_error_the_old_file_is_there_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(OSError, match="full"), replaced(path) as temporary:
        temporary.write_text("ne")
        raise OSError("full")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_two_writers_of_a_file_do_not_disturb_each_other(tmp_path):
    path = tmp_path / "a.txt"
    with replaced(path) as first, replaced(path) as second:
        first.write_text("first")
        second.write_text("second")
        assert first != second
    assert path.read_text() == "first" and list(tmp_path.iterdir()) == [path]


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
