"""Stores that follow a step's computation through the layers.

The engine calls a layer's hook once it has given the device everything that
writes the layer's KV: the operation that writes pages comes before attention, or
is part of it, on the same stream, and the hook after both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence


class LayerSaves:
    """Steps of one engine. layers: numbers of those with pages, by name. steps:
    with how many layers each step of the copies through them is complete."""

    def __init__(
        self,
        layers: Mapping[str, int],
        steps: Sequence[int],
        reached: Callable[[int], None],
        give_up: Callable[[], None],
    ) -> None:
        """reached: told how many of the steps are complete. give_up: what was
        copied of layers already may be of no use."""
        self._layers = layers
        self._steps = steps
        self._reached = reached
        self._give_up = give_up
        self._follows = False
        # Layers, of the first ones, whose hooks were called; and steps.
        self._called = 0
        self._step = 0

    def begin(self, *, follows: bool) -> None:
        """A step's computation begins. follows: its stores may follow it."""
        self._follows = follows
        self._called = self._step = 0

    def layer(self, name: str) -> None:
        """Its hook is called. Once they come in another order than the layers'
        what is left is stored after the step."""
        if not self._follows:
            return
        layer = self._layers.get(name)
        if layer == self._called:
            self._called += 1
            if self._called == self._steps[self._step]:
                self._step += 1
                self._reached(self._step)
        elif layer is not None:
            self._follows = False
            if layer < self._called:
                # Computed in pieces, the first of which may have been copied alone.
                self._give_up()
