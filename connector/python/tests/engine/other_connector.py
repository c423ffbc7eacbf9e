"""A connector beside Larder's, under vLLM's MultiConnector: claims what a test says, and loads nothing."""

# ruff: noqa: ARG002 - the signatures are vLLM's

from __future__ import annotations

from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorBase_V1, KVConnectorMetadata, SupportsHMA

CLAIM = {"tokens": 0}


class OtherMetadata(KVConnectorMetadata):
    """Nothing."""


class OtherConnector(KVConnectorBase_V1, SupportsHMA):
    """Claims CLAIM["tokens"] of every request, synchronously."""

    def start_load_kv(self, *args, **kwargs): ...

    def wait_for_layer_load(self, layer_name): ...

    def save_kv_layer(self, *args, **kwargs): ...

    def wait_for_save(self): ...

    def get_num_new_matched_tokens(self, request, num_computed_tokens):
        return max(0, CLAIM["tokens"] - num_computed_tokens), False

    def update_state_after_alloc(self, request, blocks, num_external_tokens): ...

    def build_connector_meta(self, scheduler_output):
        return OtherMetadata()

    def request_finished_all_groups(self, request, block_ids):
        return False, None
