"""larder.weights against the known answers, and against odd files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from identity_vectors import load

from larder.errors import InvalidError
from larder.weights import (
    MAX_HEADER,
    MAX_INDEX,
    MAX_SAMPLES,
    adapter_digest,
    find_weight_files,
    named_weights_id,
    weights_id,
)

VECTORS = load("weights")


def content(v: dict[str, Any]) -> bytes:
    seed = v["seed"]
    return bytes.fromhex(v["header"]) + bytes((131 * i + 7 * (i // 256) + seed) % 256 for i in range(v["data"]))


def write(folder: Path, vector: dict[str, Any]) -> list[Path]:
    out = []
    for v in vector["files"]:
        path = folder / v["name"]
        path.write_bytes(content(v))
        out.append(path)
    return out


def tensors(header: dict[str, Any], data: bytes | bytearray) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


@pytest.mark.parametrize("v", VECTORS["named"], ids=lambda v: v["name"])
def test_named(v: dict[str, str]) -> None:
    assert named_weights_id(v["name"]).hex() == v["id"]


@pytest.mark.parametrize("v", VECTORS["sets"], ids=lambda v: v["name"])
def test_set(v: dict[str, Any], tmp_path: Path) -> None:
    files = write(tmp_path, v)
    assert weights_id(files).hex() == v["id"]
    assert weights_id(reversed(files)).hex() == v["id"]
    assert weights_id(find_weight_files(tmp_path)).hex() == v["id"]


@pytest.mark.parametrize("v", VECTORS["adapters"], ids=lambda v: v["name"])
def test_adapter_vector(v: dict[str, Any], tmp_path: Path) -> None:
    write(tmp_path, v)
    (tmp_path / "README.md").write_bytes(b"no part of it")
    assert adapter_digest(tmp_path).hex() == v["id"]


@pytest.mark.parametrize("name", ["", "a b", "caf\u00e9", "a\0", "x" * 257])
def test_bad_name(name: str) -> None:
    with pytest.raises(InvalidError, match="weights_id"):
        named_weights_id(name)


def test_every_tensor_is_sampled(tmp_path: Path) -> None:
    """A tensor of one sample's length among a thousand cannot change unseen."""
    header = {f"t{i}": {"data_offsets": [4096 * i, 4096 * (i + 1)]} for i in range(1000)}
    data, path = bytearray(4096 * 1000), tmp_path / "model.safetensors"
    path.write_bytes(tensors(header, data))
    seen = {weights_id([path])}
    for tensor in (0, 1, 500, 777, 999):
        data[4096 * tensor] ^= 1
        path.write_bytes(tensors(header, data))
        seen.add(weights_id([path]))
    assert len(seen) == 6


def test_name_of_the_file_does_not_matter_but_header_and_order_do(tmp_path: Path) -> None:
    one = tensors({"a": {"data_offsets": [0, 4]}}, b"1234")
    two = tensors({"b": {"data_offsets": [0, 4]}}, b"1234")
    for name, data in (("a.safetensors", one), ("b.safetensors", two), ("c.safetensors", one)):
        (tmp_path / name).write_bytes(data)
    a, b, c = (tmp_path / f"{n}.safetensors" for n in "abc")
    assert weights_id([a]) == weights_id([c])
    assert weights_id([a]) != weights_id([b])
    assert weights_id([a, b]) != weights_id([b, c])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"1234567",
        bytes(8),
        (100).to_bytes(8, "little") + b"{}",
        (1 << 63).to_bytes(8, "little") + b"{}",
        tensors({}, b"")[:9],
        (2).to_bytes(8, "little") + b"[]",
        (2).to_bytes(8, "little") + b"{,",
        (200000).to_bytes(8, "little") + b"[" * 200000,
        tensors({"a": {"data_offsets": [0, 5]}}, b"1234"),
        tensors({"a": {"data_offsets": [-1, 4]}}, b"1234"),
        tensors({"a": {"data_offsets": [3, 2]}}, b"1234"),
        tensors({"a": {"data_offsets": [0, 1.5]}}, b"1234"),
        tensors({"a": {"data_offsets": [0]}}, b"1234"),
        tensors({"a": {"shape": []}}, b"1234"),
        tensors({"a": 1}, b"1234"),
    ],
)
def test_broken_header(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(InvalidError, match=r"model\.safetensors"):
        weights_id([path])


def test_odd_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.bin")
    (tmp_path / "folder.bin").mkdir()
    for name in ("pipe.bin", "folder.bin", "absent.bin", "nul\0.bin"):
        with pytest.raises(InvalidError, match=name.split("\0", maxsplit=1)[0]):
            weights_id([tmp_path / name])
    with pytest.raises(InvalidError, match="number of weight files"):
        weights_id([])
    (tmp_path / "a.bin").write_bytes(b"1")
    with pytest.raises(InvalidError, match="one name"):
        weights_id([tmp_path / "a.bin", tmp_path / "sub" / "a.bin"])
    link = tmp_path / "link.bin"
    link.symlink_to("a.bin")
    assert weights_id([link]) == weights_id([tmp_path / "a.bin"])


def test_find(tmp_path: Path) -> None:
    def names() -> list[str]:
        return [p.name for p in find_weight_files(tmp_path)]

    with pytest.raises(InvalidError, match="number of weight files"):
        names()
    with pytest.raises(InvalidError, match="folder"):
        find_weight_files(tmp_path / "absent")
    for name in ("x.bin", "y.pt", "z.gguf", "config.json", ".hidden.bin"):
        (tmp_path / name).write_bytes(b"")
    assert names() == ["x.bin", "y.pt", "z.gguf"]
    for name in ("b.safetensors", "a.safetensors", "._a.safetensors"):
        (tmp_path / name).write_bytes(b"")
    assert names() == ["a.safetensors", "b.safetensors"]
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"t": "b.safetensors", "u": "b.safetensors", "v": "gone.safetensors"}}))
    assert names() == ["b.safetensors", "gone.safetensors"]
    with pytest.raises(InvalidError, match=r"gone\.safetensors|b\.safetensors"):
        weights_id(find_weight_files(tmp_path))


@pytest.mark.parametrize("indexed", [True, False])
def test_both_forms_of_the_weights_in_a_folder(tmp_path: Path, indexed: bool) -> None:
    """Some engines load consolidated*.safetensors where they are, others never."""
    if indexed:
        (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"t": "model.safetensors"}}')
    seen = set()
    for one, two in ((b"1234", b"1234"), (b"1235", b"1234"), (b"1234", b"1235")):
        for name, data in (("model.safetensors", one), ("consolidated.safetensors", two)):
            (tmp_path / name).write_bytes(tensors({"a": {"data_offsets": [0, 4]}}, data))
        seen.add(weights_id(find_weight_files(tmp_path)))
    assert len(seen) == 3


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "[" * 200000]
    + [
        json.dumps({"weight_map": m})
        for m in ({"t": "../x"}, {"t": ".."}, {"t": "."}, {"t": ""}, {"t": "/x"}, {"t": 1})
    ]
    + [json.dumps({"weight_map": m}) for m in ({"t": "a\0"}, {"t": "\ud800"}, {"t": ["a"]}, None, ["a"])],
)
def test_bad_index(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(InvalidError, match="index"):
        find_weight_files(tmp_path)


def test_limits_of_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for length, too_long in ((MAX_HEADER, False), (MAX_HEADER + 1, True)):
        with path.open("wb") as f:
            f.write(length.to_bytes(8, "little"))
            f.truncate(8 + length)
        with pytest.raises(InvalidError, match="too long" if too_long else "broken safetensors header"):
            weights_id([path])
    path.write_bytes(tensors({str(i): {"data_offsets": [0, 0]} for i in range(MAX_SAMPLES + 1)}, b""))
    with pytest.raises(InvalidError, match="too many tensors"):
        weights_id([path])
    index = tmp_path / "model.safetensors.index.json"
    with index.open("wb") as f:
        f.truncate(MAX_INDEX + 1)
    with pytest.raises(InvalidError, match="index is too long"):
        find_weight_files(tmp_path)


@pytest.mark.parametrize("change", ["shrinks", "grows", "is written"])
def test_a_file_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(bytes(1 << 20))
    os.utime(path, ns=(0, 0))
    read, calls = os.pread, []

    def pread(fd: int, length: int, offset: int) -> bytes:
        calls.append(offset)
        if len(calls) == 10:
            if change == "is written":
                with path.open("r+b") as f:
                    f.write(b"1")
            else:
                os.truncate(path, 1000 if change == "shrinks" else 2 << 20)
        return read(fd, length, offset)

    monkeypatch.setattr(os, "pread", pread)
    with pytest.raises(InvalidError, match="changes while it is read"):
        weights_id([path])


def test_short_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system may give fewer bytes than asked for."""
    vector = VECTORS["sets"][1]
    files = write(tmp_path, vector)
    read = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, length, offset: read(fd, min(length, 1000), offset))
    assert weights_id(files).hex() == vector["id"]


def test_adapter(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("hello")
    with pytest.raises(InvalidError):
        adapter_digest(tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(bytes(3 << 20))
    seen = {adapter_digest(tmp_path)}
    (tmp_path / "README.md").write_text("changed")
    assert adapter_digest(tmp_path) in seen
    (tmp_path / "adapter_config.json").write_text('{"r": 8}')
    seen.add(adapter_digest(tmp_path))
    (tmp_path / "adapter_config.json").write_text('{"r": 9}')
    seen.add(adapter_digest(tmp_path))
    # Retrained under the same name, by one bit at the end.
    (tmp_path / "adapter_model.safetensors").write_bytes(bytes((3 << 20) - 1) + b"\x01")
    seen.add(adapter_digest(tmp_path))
    assert len(seen) == 4
