"""What calibrated objects (codec/FORMAT.md) have beside others: the basis section,
and units of several heads that a basis turns into components."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from larder.basis import Basis, Floats, Transform
from larder.errors import CorruptError, MissError

SECTION = struct.Struct("<32sIHHHBBI")

# The kinds that a basis can transform, by its numbers.
_NUMBERS = {"k": 1, "v": 2, "latent": 3}

Array = NDArray[Any]


@dataclass(frozen=True)
class BasisRef:
    """What an object says of its basis."""

    name: bytes
    position: int
    first_head: int
    joined: int
    scale: np.float32
    unit: int
    fields: int


def read_ref(section: bytes, heads: int, kinds: list[str]) -> BasisRef:
    """Read the basis section of an object with these heads and kinds of fields."""
    name, position, first, joined, scale, unit, mask, zero = SECTION.unpack(section)
    factor = np.uint32(scale << 16).view(np.float32)
    opaque = any(mask >> i & 1 and kind == "opaque" for i, kind in enumerate(kinds))
    if joined < 1 or heads % joined or not 2.0**-8 <= factor <= 2.0**8 or unit not in {1, 2}:
        raise CorruptError("an impossible section", field="object.basis")
    if mask == 0 or mask >> len(kinds) or opaque or zero:
        raise CorruptError("an impossible field", field="object.basis", value=str(mask))
    return BasisRef(name, position, first, joined, factor, unit, mask)


@dataclass(frozen=True)
class Units:
    """The shape of an object's units: heads and dims are those of joined heads; a
    field is its kind, dims and number of classes."""

    ref: BasisRef
    first_layer: int
    layers: int
    heads: int
    tokens: int
    fields: list[tuple[str, int, int]]


@dataclass(frozen=True)
class Calibrated:
    """How a unit's components become its rows."""

    transform: Transform
    steps: Floats
    basis: Basis
    turns: bool
    position: int
    dims: int

    def rows(self, values: Array) -> Floats:
        """Return the rows of values in steps of level 0."""
        rows = self.transform.reconstruct(self.steps * values.astype(np.float32))
        return self.basis.rotate(rows, self.position, self.dims) if self.turns else rows


def resolve(units: Units, basis: Basis | None) -> dict[tuple[int, int, int], Calibrated]:
    """Return how each calibrated unit (layer, field, head) is decoded. MissError: it
    is not the object's basis. CorruptError: it is not for these units."""
    ref = units.ref
    if basis is None or basis.name != ref.name:
        raise MissError("another basis", field="object.basis", value=ref.name.hex())
    layer = units.first_layer - basis.first_layer
    fits = (
        (ref.unit, ref.joined) == (basis.unit, basis.joined)
        and 0 <= layer <= basis.layers - units.layers
        and ref.first_head % ref.joined == 0
        and ref.first_head + units.heads * ref.joined <= basis.heads
    )
    out = {}
    for i, (kind, dims, classes) in enumerate(units.fields):
        if not ref.fields >> i & 1:
            continue
        k = basis.field(_NUMBERS.get(kind, 0))
        fits = fits and k >= 0 and (basis.fields[k].dims * ref.joined, basis.fields[k].classes) == (dims, classes)
        if not fits or (basis.turns(k) and ref.position + units.tokens > basis.positions):
            raise CorruptError("is not for this object", field="object.basis")
        for at in range(units.layers):
            for block in range(units.heads):
                t = basis.transform(layer + at, k, ref.first_head // ref.joined + block)
                steps = _bf16(t.steps * ref.scale)
                out[at, i, block] = Calibrated(t, steps, basis, basis.turns(k), ref.position, dims // ref.joined)
    return out


def _bf16(values: Floats) -> Floats:
    """Round to bf16, ties to even."""
    bits = values.view(np.uint32).astype(np.int64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16).astype(np.uint32).view(np.float32)


def heads_of(units: NDArray[np.uint8], widths: list[int], joined: int) -> NDArray[np.uint8]:
    """Take heads [layer, head, token, fields] out of units of joined heads, in which
    a token has field after field, and in a field head after head."""
    if joined == 1:
        return units
    layers, blocks, tokens, _ = units.shape
    heads, at = [], 0
    for width in widths:
        field = units[..., at : at + width].reshape(layers, blocks, tokens, joined, -1)
        heads.append(field.transpose(0, 1, 3, 2, 4))
        at += width
    return np.concatenate(heads, -1)
