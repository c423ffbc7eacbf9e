"""The engine's answer to a load that failed: recompute, not an error.

vLLM 0.26 reads kv_load_failure_policy once, after it made the scheduler's
connector, and its default fails the request.
"""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

from vllm.logger import init_logger

from larder.errors import InvalidError

logger = init_logger("vllm.larder.policy")

_RECOMPUTE = "recompute"


def set_recompute(config: Any) -> None:
    """Sets the policy in a KVTransferConfig, and in that of a MultiConnector
    around it, which is the one that counts there; INVALID where the engine has
    no such policy."""
    for transfer in [config, *_outer_configs()]:
        if not hasattr(transfer, "kv_load_failure_policy"):
            raise InvalidError(
                "this engine cannot recompute what a load did not bring",
                "kv_transfer_config.kv_load_failure_policy",
                "absent",
                _RECOMPUTE,
            )
        if transfer.kv_load_failure_policy != _RECOMPUTE:
            logger.info("Larder: kv_load_failure_policy set from %s to recompute", transfer.kv_load_failure_policy)
            transfer.kv_load_failure_policy = _RECOMPUTE


def _outer_configs() -> list[Any]:
    """A MultiConnector hands each connector a config of its own and keeps the
    engine's, which nothing leads to but the calls under way."""
    from vllm.distributed.kv_transfer.kv_connector.v1.multi_connector import (
        MultiConnector,
    )

    found = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, MultiConnector):
            found.append(frame.f_locals["vllm_config"].kv_transfer_config)
        frame = frame.f_back
    return found
