"""Keys below a folder on this machine, where many write and remove at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from eozip.errors import OutputError
from eozip.keys import LocalKeys


def test_writers_do_not_lose_the_folders_that_others_find_empty(tmp_path):
    keys = LocalKeys(tmp_path / "out")

    def write(k: int) -> bool:
        for turn in range(25):
            keys.put(f"a/{k}", b"x")
            keys.remove([f"a/{k}"])
            keys.create(f"b/{k}/{turn}", b"y")
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(write, range(4)))
    assert len(keys.sizes()) == 4 * 25
    assert not (tmp_path / "out" / LocalKeys.PART).exists()


def test_what_is_created_replaces_nothing(tmp_path):
    keys = LocalKeys(tmp_path / "out")
    assert keys.create("k", b"first")
    assert keys.create("k", b"first")
    assert not keys.create("k", b"second")
    assert keys.get("k") == b"first"


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot write"):
        LocalKeys(tmp_path).put("a/k", b"x")
