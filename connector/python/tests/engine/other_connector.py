"""A connector beside Larder's, under vLLM's MultiConnector: claims what a test says, and loads nothing."""

# ruff: noqa: ARG002 - the signatures are vLLM's

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorBase_V1, KVConnectorMetadata, SupportsHMA

CLAIM = {"tokens": 0}


class OtherMetadata(KVConnectorMetadata):
    """Nothing."""


class OtherConnector(KVConnectorBase_V1, SupportsHMA):
    """Claims CLAIM["tokens"] of every request, synchronously."""

    def start_load_kv(self, *args: Any, **kwargs: Any) -> None: ...

    def wait_for_layer_load(self, layer_name: Any) -> None: ...

    def save_kv_layer(self, *args: Any, **kwargs: Any) -> None: ...

    def wait_for_save(self) -> None: ...

    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: Any) -> Any:
        return max(0, CLAIM["tokens"] - num_computed_tokens), False

    def update_state_after_alloc(self, request: Any, blocks: Sequence[int], num_external_tokens: Any) -> None: ...

    def build_connector_meta(self, scheduler_output: Any) -> Any:
        return OtherMetadata()

    def request_finished_all_groups(self, request: Any, block_ids: Any) -> Any:
        return False, None
