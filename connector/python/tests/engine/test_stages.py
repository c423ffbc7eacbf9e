"""Pipeline stages: what they tell each other, and the layer spans that they make."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from simulated_config import make_config, write_config

from larder.errors import InvalidError
from larder.vllm.stages import GroupLayers, Place, Said, all_layers, layer_spans


class Meeting:
    """Stages that meet, each on a thread of its own."""

    def __init__(self, size: int) -> None:
        self._barrier = threading.Barrier(size, timeout=60)
        self._said: dict[int, Said] = {}
        self.results: dict[int, Any] = {}

    def join(self, stage: int, layers: GroupLayers | InvalidError) -> None:
        def tell(said: Said) -> list[Said]:
            self._said[stage] = said
            self._barrier.wait()
            return [self._said[i] for i in sorted(self._said)]

        def own() -> GroupLayers:
            if isinstance(layers, InvalidError):
                raise layers
            return layers

        try:
            self.results[stage] = all_layers(Place(0, stage, tell), own)
        except InvalidError as error:
            self.results[stage] = str(error)


def meet(*stages: GroupLayers | InvalidError) -> list[Any]:
    meeting = Meeting(len(stages))
    threads = [threading.Thread(target=meeting.join, args=one) for one in enumerate(stages)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [meeting.results[stage] for stage in range(len(stages))]


def test_every_stage_learns_all_layers_by_group() -> None:
    want = (((0, 1, 3, 4), (2, 5)), ((0, 1, 2), (3, 4, 5)))
    assert meet(((0, 1), (2,)), ((3, 4), (5,))) == [want, want]


def test_a_stage_without_layers_of_a_group() -> None:
    want = (((0, 1, 2), (3,)), ((0, 1), (2, 3)))
    assert meet(((0, 1), ()), ((2,), (3,))) == [want, want]


def test_a_stage_that_fails_has_all_fail() -> None:
    first, second = meet(((0,),), InvalidError("an attention layer without a number", "layers", "x"))
    assert first == second
    assert "without a number" in first
    assert "stage 1" in first


def test_without_stages_nobody_is_asked() -> None:
    assert all_layers(Place(), lambda: ((0, 1),)) == (((0, 1),), ((0, 1),))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from simulated_config import CONFIG

    folder: Path = write_config(tmp_path_factory.mktemp("twelve"), {**CONFIG, "num_hidden_layers": 12})
    return make_config(folder)


@pytest.mark.parametrize(
    ("stages", "wanted", "spans"),
    [
        ([range(12)], 0, (0,)),
        ([range(12)], 1, (0,)),
        ([range(12)], 2, (0, 6)),
        ([range(6), range(6, 12)], 0, (0, 6)),
        ([range(6), range(6, 12)], 2, (0, 6)),
        ([range(6), range(6, 12)], 4, (0, 3, 6, 9)),
        # Cut elsewhere by the operator.
        ([range(5), range(5, 12)], 0, (0, 5)),
        # Attention in every third layer only: spans begin with layers of their own.
        ([[2, 5, 8, 11]], 4, (0, 5, 8, 11)),
        ([[2, 5], [8, 11]], 0, (0, 8)),
        ([[2, 5], [8, 11]], 2, (0, 8)),
        # Nothing to cache before layer 6.
        ([[6, 7, 8]], 2, (0,)),
    ],
)
def test_spans(config: Any, stages: list[Any], wanted: int, spans: tuple[int, ...]) -> None:
    assert layer_spans(config, [tuple(stage) for stage in stages], wanted) == spans


@pytest.mark.parametrize(
    ("stages", "wanted", "message"),
    [
        ([range(6), range(6, 12)], 1, "begin at layer 6"),
        ([range(6), range(6, 12)], 3, "begin at layer 6"),
        ([range(5), range(5, 12)], 2, "begin at layer 5"),
        ([range(12)], 13, "more spans than layers"),
    ],
)
def test_spans_that_cannot_be(config: Any, stages: list[Any], wanted: int, message: str) -> None:
    with pytest.raises(InvalidError, match=message):
        layer_spans(config, [tuple(stage) for stage in stages], wanted)


def test_spans_of_a_partition_that_fits_another_number_of_stages(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_PP_LAYER_PARTITION", "5,7")
    assert layer_spans(config, [tuple(range(12))], 2) == (0, 5)
    with pytest.raises(InvalidError, match="layer_spans"):
        layer_spans(config, [tuple(range(12))], 3)
