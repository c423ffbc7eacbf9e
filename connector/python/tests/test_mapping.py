"""Mapped memory and its views."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from larder.mapping import map_shared

MAPS = Path("/proc/self/maps")


def test_a_mapping_lasts_as_long_as_its_views(folder: Path) -> None:
    path = folder / "memory"
    path.write_bytes(b"abc" * 4096)
    with path.open("r+b") as file:
        whole = map_shared(file.fileno(), 4096, writable=False, prefault=True)
    view = whole[1:3]
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1
    del whole
    gc.collect()
    assert str(path) in MAPS.read_text()
    assert view.tobytes() == b"bc"
    del view
    gc.collect()
    assert str(path) not in MAPS.read_text()


def test_writes_are_shared(folder: Path) -> None:
    path = folder / "memory"
    path.write_bytes(bytes(4096))
    with path.open("r+b") as file:
        map_shared(file.fileno(), 4096, writable=True, prefault=False)[:3] = [1, 2, 3]
    assert path.read_bytes()[:4] == b"\1\2\3\0"


def test_what_cannot_be_mapped_says_why(folder: Path) -> None:
    with (folder / "memory").open("wb") as file, pytest.raises(OSError, match="Permission denied"):
        map_shared(file.fileno(), 4096, writable=False, prefault=False)
