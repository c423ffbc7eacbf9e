"""Drawn weights whose answers depend on the whole prompt.

vLLM's own dummy weights lie in +-0.001, norms too: attention is then the mean of
everything, and hardly counts. Here matrices are normal and norms are 1, so a
wrong page changes what is generated. The same model and number of ranks give the
same weights in every process.
"""

from __future__ import annotations

import itertools
from typing import Any


def draw_weights() -> None:
    """Replaces vLLM's dummy weights in this process."""
    import torch
    from vllm.model_executor.model_loader import dummy_loader

    seeds = itertools.count(1)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def initialize(module: Any, model_config: Any, **kwargs: Any) -> None:  # noqa: ARG001
        for parameter in module.parameters(recurse=False):
            if not torch.is_floating_point(parameter):
                continue
            if parameter.dim() < 2:
                parameter.data.fill_(1.0)
                continue
            random = torch.Generator(parameter.device).manual_seed(next(seeds))
            parameter.data.normal_(0.0, 1.3 / parameter.shape[-1] ** 0.5, generator=random)

    dummy_loader.initialize_dummy_weights = initialize
