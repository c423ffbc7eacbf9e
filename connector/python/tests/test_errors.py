"""larder.errors: kinds, texts, and the way between processes."""

from __future__ import annotations

import pickle

import pytest

from larder.errors import Kind, LarderError, UnavailableError, error
from larder.v1 import error_pb2


def test_kinds_are_the_protocols() -> None:
    names = {n.removeprefix("ERROR_KIND_"): v for n, v in error_pb2.ErrorKind.items() if v}
    assert names == {k.name: k.value for k in Kind}


@pytest.mark.parametrize("kind", Kind)
def test_each_kind_has_its_class(kind: Kind) -> None:
    e = error(kind, "no", "field", "1", "2")
    assert type(e).__name__ == f"{kind.name.title()}Error"
    assert isinstance(e, LarderError)
    assert (e.kind, e.message, e.field, e.value, e.limit) == (kind, "no", "field", "1", "2")
    assert str(e) == f"{kind.name.lower()}: field: no (value 1, limit 2)"
    copy = pickle.loads(pickle.dumps(e))  # noqa: S301 - our own bytes
    assert type(copy) is type(e)
    assert str(copy) == str(e)


def test_unknown_kind_is_unavailable() -> None:
    assert type(error(99, "new")) is UnavailableError
    assert str(error(0, "new")) == "unavailable: new"
