"""larder.weights on files that somebody else wrote: whatever they hold, the answer is an id or INVALID, in memory that
follows the size of what is read."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from larder.errors import InvalidError
from larder.weights import SAMPLE_BYTES, find_weight_files, weights_id

T = TypeVar("T")

# A sparse file costs nothing.
MAX_DATA = 1 << 30

leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(1 << 70), max_value=1 << 70)
    | st.floats()
    | st.text(st.characters())  # surrogates among them
)
values = st.recursive(leaves, lambda v: st.lists(v) | st.dictionaries(st.text(), v), max_leaves=10)


@st.composite
def wholesome(draw: st.DrawFn) -> tuple[dict[str, Any], int]:
    """A header as it should be, and the bytes of data that it is about."""
    total = draw(st.integers(0, 3 * SAMPLE_BYTES) | st.integers(0, MAX_DATA))
    header: dict[str, Any] = draw(st.sampled_from(({}, {"__metadata__": {"format": "pt"}})))
    for name in draw(st.lists(st.text(min_size=1), max_size=8)):
        begin, end = sorted(draw(st.tuples(st.integers(0, total), st.integers(0, total))))
        header |= {name: {"dtype": "BF16", "shape": [1], "data_offsets": [begin, end]}}
    return header, total


@st.composite
def hostile(draw: st.DrawFn) -> tuple[Any, int]:
    """A header in which something stands where something else belongs."""
    header, total = draw(wholesome())
    bad = draw(st.sampled_from([0.0, 0.5, True, None]) | values)
    edge = draw(st.sampled_from([0, total, total + 1]))
    entries = [bad, {"data_offsets": bad}, {"data_offsets": [edge, bad]}, {"data_offsets": [bad, edge]}]
    return draw(st.sampled_from([bad, *(header | {"one more": e} for e in entries)])), total


def encoded(document: Any) -> bytes:
    """Its JSON. A string may hold half of a surrogate pair, which JSON can only escape."""
    return json.dumps(document).encode("ascii")


@st.composite
def mangled(draw: st.DrawFn, text: bytes) -> bytes:
    """The text, cut, doubled or with other bytes somewhere in it."""
    at = draw(st.integers(0, len(text)))
    until = draw(st.integers(at, len(text)))
    return text[:at] + draw(st.binary(max_size=20) | st.just(text[at:until] * 2)) + text[until:]


def measured(work: Callable[[], T], size: int) -> T | None:
    """The work's result, or None where it is INVALID. size: bytes that it may read."""
    tracemalloc.start()
    try:
        return work()
    except InvalidError:
        return None
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < (2 << 20) + 100 * size, f"{peak} bytes for {size} bytes of text"


def write(path: Path, length: int, text: bytes, data: int) -> None:
    with path.open("wb") as f:
        f.write(length.to_bytes(8, "little") + text)
        f.truncate(8 + len(text) + data)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for one file after the other."""
    return tmp_path_factory.mktemp("model")


@given(wholesome())
def test_a_header_as_it_should_be(model: Path, case: tuple[dict[str, Any], int]) -> None:
    header, total = case
    path, text = model / "model.safetensors", encoded(header)
    write(path, len(text), text, total)
    name = measured(lambda: weights_id([path]), len(text))
    assert name is not None
    assert len(name) == 32


@given(hostile())
def test_hostile_headers(model: Path, case: tuple[Any, int]) -> None:
    header, total = case
    path, text = model / "model.safetensors", encoded(header)
    write(path, len(text), text, total)
    measured(lambda: weights_id([path]), len(text))


@given(wholesome(), st.data())
def test_mangled_headers(model: Path, case: tuple[dict[str, Any], int], data: st.DataObject) -> None:
    header, total = case
    text = data.draw(mangled(encoded(header)), "text")
    lengths = st.just(len(text)) | st.integers(0, (1 << 64) - 1) | st.integers(0, 2 * len(text))
    length = data.draw(lengths, "length")
    path = model / "model.safetensors"
    write(path, length, text, total)
    # A length within the file, but beyond the text, has zeros read, to a limit.
    size = max(len(text), length) if length <= len(text) + total else len(text)
    measured(lambda: weights_id([path]), size)


@pytest.mark.parametrize("beyond", [-1, 1, 1 << 40])
@given(case=wholesome())
def test_a_tensor_outside_the_file(model: Path, case: tuple[dict[str, Any], int], beyond: int) -> None:
    header, total = case
    offsets = [beyond, total] if beyond < 0 else [0, total + beyond]
    text = encoded(header | {"one more": {"data_offsets": offsets}})
    path = model / "model.safetensors"
    write(path, len(text), text, total)
    with pytest.raises(InvalidError, match="outside its file"):
        weights_id([path])


names = st.text(st.characters(), max_size=300) | st.sampled_from(
    ["a.safetensors", "b.safetensors", "", ".", "..", "../b", "c/d", "/e", "f\0", "\ud800", "\udc80"]
)


@given(st.dictionaries(st.text(), names, max_size=2) | st.dictionaries(st.text(), names | leaves), st.data())
def test_hostile_indexes(model: Path, mapping: dict[str, Any], data: st.DataObject) -> None:
    text = encoded({"metadata": {}, "weight_map": mapping})
    text = data.draw(st.just(text) | mangled(text) | values.map(encoded), "text")
    folder = model / "indexed"
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors.index.json").write_bytes(text)
    found = measured(lambda: find_weight_files(folder), len(text))
    for path in found or ():
        # A file of this folder, by a name that the system may refuse but takes for nothing else.
        assert path.parent == folder
        assert path.name not in ("", ".", "..")
        assert b"\0" not in os.fsencode(path)


@given(st.sets(st.text("abc.-_é", min_size=1, max_size=20).filter(lambda n: n.strip(".")), min_size=1, max_size=8))
def test_an_index_as_it_should_be(model: Path, listed: set[str]) -> None:
    folder = model / "indexed"
    folder.mkdir(exist_ok=True)
    text = encoded({"weight_map": {f"t{i}": n for i, n in enumerate(sorted(listed))}})
    (folder / "model.safetensors.index.json").write_bytes(text)
    found = measured(lambda: find_weight_files(folder), len(text))
    assert found is not None
    assert {p.name for p in found} == listed
