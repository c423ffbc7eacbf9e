"""Arena memory as torch tensors, without a copy."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any

import torch

from larder.load import Bytes


@lru_cache(maxsize=64)
def _array(size: int) -> Any:
    return ctypes.c_uint8 * size


def tensor(view: Bytes, dtype: Any) -> Any:
    """Returns a one-dimensional tensor over the bytes of view.

    It keeps no reference: the caller holds the view as long as the tensor is
    in use. Bytes that are mapped read-only must not be written through it;
    torch knows no read-only tensors, and warns where numpy's are handed over.
    """
    return torch.frombuffer(_array(view.nbytes).from_address(view.ctypes.data), dtype=dtype)
