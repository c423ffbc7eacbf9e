"""Where the engine calls the hooks for layers.

It does in eager steps and between the pieces of piecewise CUDA graphs, and not
under full ones. A step goes layer by layer only in a mode in which an earlier
step has called the hook of every layer, once: what some backend or model leaves
out would be computed on pages that are not there yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from larder.vllm.arrivals import Arrivals


def layer_hooks(vllm_config: Any) -> bool:
    """Whether steps may call the hooks on the stream that they begin on: halves
    of a batch have streams of their own."""
    parallel = vllm_config.parallel_config
    return not (getattr(parallel, "enable_dbo", False) or getattr(parallel, "use_ubatching", False))


class LayerWaits:
    """Waits of one engine's steps. layers: numbers of those with pages, by name."""

    def __init__(self, arrivals: Arrivals, layers: Mapping[str, int]) -> None:
        self._arrivals = arrivals
        self._layers = layers
        # Modes whose steps call every hook.
        self._proven: set[str] = set()
        self._mode = ""
        self._seen: set[int] | None = None
        self._once = True

    def begin(self, forward_context: Any) -> bool:
        """A step's computation begins. Whether steps of its mode call every hook.
        forward_context: the engine's; None where it has none."""
        computes = getattr(forward_context, "attn_metadata", None) is not None
        self._mode = str(getattr(forward_context, "cudagraph_runtime_mode", ""))
        self._seen = None
        if computes and self._mode in self._proven:
            return True
        self._arrivals.rest()
        self._seen, self._once = (set() if computes else None), True
        return False

    def layer(self, name: str) -> None:
        """Its hook is called."""
        if self._seen is None and not self._arrivals.due:
            return
        layer = self._layers.get(name)
        if layer is None:
            self._arrivals.rest()
            return
        if self._seen is not None:
            self._once &= layer not in self._seen
            self._seen.add(layer)
        self._arrivals.layer(layer)

    def end(self) -> None:
        """The computation has been started."""
        self._arrivals.rest()
        if self._seen is not None and self._once and len(self._seen) == len(self._layers):
            self._proven.add(self._mode)
        self._seen = None
