"""Codes the KV in numpy arrays, and gives it back: numpy in, numpy out.

The work is done by the command `larder codec`, some GB/s a core, and a process
and two files for each call. A library of Go inside of an engine's process was
rejected: it brings a second runtime with signal handlers and threads that do not
outlive a fork, and a compiler to whoever installs the package. larder.codec decodes
without any command, slowly.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from larder.codec import Object, parse
from larder.errors import InvalidError, Kind, UnavailableError, error

Array = NDArray[Any]

# numpy has no type for bf16: its bits are uint16. What uint8 is, Coding.types says.
_TYPES = {"float32": "fp32", "float16": "fp16", "uint16": "bf16"}
_ARRAYS = {"fp32": "<f4", "fp16": "<f2", "bf16": "<u2", "fp8_e4m3": "u1", "fp8_e5m2": "u1", "u8": "u1"}
_KINDS = ("k", "v", "latent", "rope", "opaque")


@dataclass(frozen=True)
class Coding:
    """How an object is coded.

    mode: raw, lossless, plain or calibrated. finest, coarsest: the levels that it
    holds, 0 (the finest) to 3. sinks: leading tokens that stay exact, 0 but for a
    prompt's first chunk. steps: of level 0 by kind, in units of a head's rms; left
    out, the codec's. types: by kind, where the array's type does not say it: fp8_e4m3
    or fp8_e5m2 for uint8.

    basis, for calibrated alone: its file; position of the first token in its prompt,
    first_head the number of the first head in the model.
    """

    mode: str = "plain"
    finest: int = 0
    coarsest: int = 3
    sinks: int = 0
    steps: Mapping[str, float] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)
    basis: Path | None = None
    position: int = 0
    first_head: int = 0


class Codec:
    """Objects by a command. It keeps nothing, and may be used by many threads.

    command: `larder`, found by its name or its path. timeout_s: for one call; beyond
    it the command is killed. Errors of all methods: UNAVAILABLE without the command or
    beyond the timeout, else what the command says.
    """

    def __init__(self, command: str | Path = "larder", timeout_s: float = 60.0) -> None:
        self._command = str(command)
        self._timeout_s = timeout_s

    def encode(self, kv: Mapping[str, Array], coding: Coding | None = None) -> bytes:
        """Return the object of kv: by kind (k, v, latent, rope, opaque) an array of
        layers, heads, tokens, dims, of which the first three are the same for all.
        INVALID: arrays that are no part."""
        coding = coding or Coding()
        kinds = [kind for kind in _KINDS if kind in kv]
        if not kinds or len(kinds) != len(kv):
            raise InvalidError("kinds are not known", "kv", str(sorted(kv)), ", ".join(_KINDS))
        shape = kv[kinds[0]].shape
        fields, parts = [], []
        for kind in kinds:
            array = kv[kind]
            if array.ndim != 4 or array.shape[:3] != shape[:3] or 0 in array.shape:
                raise InvalidError(
                    "not layers, heads, tokens, dims as the others", f"kv.{kind}", str(array.shape), str(shape)
                )
            step = f":{coding.steps[kind]}" if kind in coding.steps else ""
            fields.append(f"{kind}:{_type(kind, array, coding)}:{array.shape[3]}{step}")
            little = array.astype(array.dtype.newbyteorder("<"), copy=False)
            parts.append(np.ascontiguousarray(little).view(np.uint8).reshape(*shape[:3], -1))
        layers, heads, tokens = shape[:3]
        with tempfile.TemporaryDirectory(prefix="larder-codec-") as folder:
            raw, coded = Path(folder, "raw"), Path(folder, "coded")
            np.concatenate(parts, axis=3).tofile(raw)
            arguments = ["encode", str(raw), str(coded), "--mode", coding.mode, "--fields", ",".join(fields)]
            arguments += ["--layers", str(layers), "--heads", str(heads), "--tokens", str(tokens)]
            arguments += ["--levels", f"{coding.finest}-{coding.coarsest}", "--sinks", str(coding.sinks)]
            if coding.basis is not None:
                arguments += ["--basis", str(coding.basis), "--position", str(coding.position)]
                arguments += ["--first-head", str(coding.first_head)]
            self._run(arguments)
            return coded.read_bytes()

    def decode(self, data: bytes, max_bytes: int, level: int = 0, basis: Path | None = None) -> dict[str, Array]:
        """Return what a whole object of at most max_bytes uncoded bytes decodes to, by
        kind: layers, heads, tokens, dims. bf16 comes as its bits in uint16, fp8 in
        uint8. CORRUPT: damaged. MISS: another version, or a basis that is not this one.
        INVALID: larger than allowed."""
        o = parse(data, max_bytes, verify=False)
        kinds = [f.kind for f in o.fields]
        if len(set(kinds)) != len(kinds):
            raise InvalidError("has two fields of a kind", "object.fields", str(kinds))
        with tempfile.TemporaryDirectory(prefix="larder-codec-") as folder:
            raw, coded = Path(folder, "raw"), Path(folder, "coded")
            coded.write_bytes(data)
            arguments = ["decode", str(coded), str(raw), "--level", str(level)]
            if basis is not None:
                arguments += ["--basis", str(basis)]
            self._run(arguments)
            return arrays(o, np.fromfile(raw, np.uint8))

    def _run(self, arguments: list[str]) -> None:
        command = [self._command, "codec", *arguments, "--json"]
        try:
            done = subprocess.run(command, capture_output=True, timeout=self._timeout_s, check=False)
        except OSError as e:
            raise UnavailableError(f"the command cannot be started: {e}", "command", self._command) from e
        except subprocess.TimeoutExpired as e:
            raise UnavailableError("the command took too long", "command", self._command, f"{self._timeout_s} s") from e
        if done.returncode:
            raise _failure(done.returncode, done.stderr)


def arrays(o: Object, raw: NDArray[np.uint8]) -> dict[str, Array]:
    """Return the uncoded bytes of an object, as larder.codec.decode gives them, by kind:
    layers, heads, tokens, dims."""
    joined = o.basis.joined if o.basis is not None else 1
    rows = raw.reshape(o.layers, o.heads * joined, o.tokens, -1)
    out: dict[str, Array] = {}
    at = 0
    for f in o.fields:
        width = f.width // joined
        out[f.kind] = np.ascontiguousarray(rows[..., at : at + width]).view(_ARRAYS[f.dtype.name])
        at += width
    return out


def _type(kind: str, array: Array, coding: Coding) -> str:
    name = coding.types.get(kind) or ("u8" if kind == "opaque" else _TYPES.get(array.dtype.name, ""))
    if name not in _ARRAYS or np.dtype(_ARRAYS[name]).itemsize != array.dtype.itemsize:
        raise InvalidError("a type that cannot be coded", f"kv.{kind}", str(array.dtype), name)
    return name


def _failure(status: int, said: bytes) -> Exception:
    """Return what the command says was wrong."""
    try:
        e = json.loads(said.splitlines()[-1])["error"]
        kind = Kind.INVALID if e["kind"] == "usage" else Kind[e["kind"].upper()]
        return error(kind, e["message"], e["field"], e["value"], e["limit"])
    except (ValueError, LookupError, TypeError):
        text = said.decode(errors="replace").strip()
        return UnavailableError(text or "the command failed", "command", str(status))
