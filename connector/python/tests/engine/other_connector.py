"""A connector beside Larder's, under vLLM's MultiConnector: claims what a test says, and loads nothing."""

# ruff: noqa: ARG002 - the signatures are vLLM's

from __future__ import annotations

from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorBase_V1, KVConnectorMetadata, SupportsHMA

CLAIM = {"tokens": 0, "async": 0, "fails": 0}


class OtherMetadata(KVConnectorMetadata):
    """Requests whose asynchronous load begins, and ends in the same step. invalid: blocks that are not filled."""

    def __init__(self, loads: set[str], invalid: set[int]) -> None:
        self.loads = loads
        self.invalid = invalid


class OtherConnector(KVConnectorBase_V1, SupportsHMA):
    """Claims CLAIM["tokens"] of every request, asynchronously where CLAIM["async"] is not 0, and says
    that it failed where CLAIM["fails"] is not 0."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._loads: set[str] = set()
        self._invalid: set[int] = set()

    def start_load_kv(self, *args: Any, **kwargs: Any) -> None: ...

    def wait_for_layer_load(self, layer_name: Any) -> None: ...

    def save_kv_layer(self, *args: Any, **kwargs: Any) -> None: ...

    def wait_for_save(self) -> None: ...

    def get_finished(self, finished_req_ids: set[str]) -> Any:
        metadata = self._get_connector_metadata()
        assert isinstance(metadata, OtherMetadata)
        return None, metadata.loads

    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: Any) -> Any:
        tokens = max(0, CLAIM["tokens"] - num_computed_tokens)
        return tokens, bool(tokens and CLAIM["async"])

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        if num_external_tokens and CLAIM["fails"]:
            self._invalid |= set(blocks.get_block_ids()[0][: num_external_tokens // 16])
        if num_external_tokens and CLAIM["async"]:
            self._loads.add(request.request_id)

    def build_connector_meta(self, scheduler_output: Any) -> Any:
        loads, self._loads = self._loads, set()
        invalid, self._invalid = self._invalid, set()
        return OtherMetadata(loads, invalid)

    def get_block_ids_with_load_errors(self) -> set[int]:
        metadata = self._get_connector_metadata()
        assert isinstance(metadata, OtherMetadata)
        return metadata.invalid

    def request_finished_all_groups(self, request: Any, block_ids: Any) -> Any:
        return False, None
