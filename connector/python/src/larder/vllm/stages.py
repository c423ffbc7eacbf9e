"""Where a worker stands among the ranks of its engine, and the layer spans that
pipeline stages make.

A worker sees the layers of its own stage only, but a namespace names all of the
model's, and its spans are where stages begin: so the stages tell each other
their layers before any of them connects.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from larder.errors import InvalidError

GroupLayers = tuple[tuple[int, ...], ...]
"""Model layer ids, for each KV cache group."""


@dataclass(frozen=True)
class Said:
    """What a stage tells the others: its layers, or why it has none to tell."""

    layers: GroupLayers
    error: str = ""


@dataclass(frozen=True)
class Place:
    """A rank. tell: hands this stage's layers to the other stages and returns
    what each said, by stage; every stage calls it once, and waits there."""

    tensor: int = 0
    pipeline: int = 0
    tell: Callable[[Said], list[Said]] = lambda said: [said]


def place(vllm_config: Any) -> Place:
    """Returns where this process stands."""
    p = vllm_config.parallel_config
    if p.tensor_parallel_size == p.pipeline_parallel_size == 1:
        return Place()
    from vllm.distributed.parallel_state import get_pp_group, get_tp_group

    stages = get_pp_group()
    if stages.world_size == 1:
        return Place(get_tp_group().rank_in_group)

    def tell(said: Said) -> list[Said]:
        from torch.distributed import all_gather_object

        found: list[Any] = [None] * stages.world_size
        all_gather_object(found, said, group=stages.cpu_group)
        return found

    return Place(get_tp_group().rank_in_group, stages.rank_in_group, tell)


def all_layers(here: Place, own: Callable[[], GroupLayers]) -> tuple[GroupLayers, tuple[tuple[int, ...], ...]]:
    """Returns the model's layers by group, and those of each stage.

    INVALID on all stages where any of them fails to say its own: one that gave
    up alone would leave the others waiting."""
    try:
        said = Said(own())
    except InvalidError as error:
        said = Said((), str(error))
    stages = here.tell(said)
    for stage, one in enumerate(stages):
        if one.error:
            raise InvalidError(one.error, "namespace.groups.layers", f"pipeline stage {stage}")
    groups = tuple(
        tuple(sorted(layer for stage in stages for layer in stage.layers[group]))
        for group in range(len(stages[0].layers))
    )
    return groups, tuple(tuple(sorted(set().union(*stage.layers))) for stage in stages)


def layer_spans(vllm_config: Any, stages: Sequence[Sequence[int]], wanted: int) -> tuple[int, ...]:
    """Returns the first layer of each span. stages: the layers of each stage.
    wanted: so many spans, cut as the engine would cut the model into as many
    stages; 0: one for each stage.

    INVALID where a stage would hold a piece of a span."""
    layers = sorted(set().union(*stages))
    starts = [stage[0] for stage in stages if stage] if wanted == 0 else _cuts(vllm_config, wanted)
    # Spans have layers, and the first of them begins the model.
    spans = sorted({0, *(layer for layer in (_from(layers, start) for start in starts) if layer > layers[0])})
    for stage in stages:
        if stage and stage[0] > layers[0] and stage[0] not in spans:
            raise InvalidError(
                "the layers of a pipeline stage are not whole spans",
                "kv_connector_extra_config.layer_spans",
                str(wanted),
                f"0, or a number whose spans begin at layer {stage[0]} too",
            )
    return tuple(spans)


def _from(layers: Sequence[int], start: int) -> int:
    """The first layer from start on; without one, the first of all."""
    return next((layer for layer in layers if layer >= start), layers[0])


def _cuts(vllm_config: Any, stages: int) -> list[int]:
    from vllm.distributed.utils import get_pp_indices

    total = vllm_config.model_config.get_total_num_hidden_layers()
    if stages > total:
        raise InvalidError("more spans than layers", "kv_connector_extra_config.layer_spans", str(stages), str(total))
    try:
        return [get_pp_indices(total, stage, stages)[0] for stage in range(stages)]
    except ValueError as error:
        raise InvalidError(str(error), "kv_connector_extra_config.layer_spans", str(stages)) from error
