"""Larder's connector for vLLM: kv_connector "LarderConnector", kv_connector_module_path "larder.vllm".

Two halves, as vLLM has it: larder.vllm.scheduler decides, larder.vllm.worker
moves KV. Invariants:

- No hook waits without a small bound, and none fails a request: whatever is
  wrong with the daemon, the engine computes.
- Every load that the scheduler half starts ends in exactly one report of each
  rank; after it nothing writes into its pages. Pages that were not filled are
  reported in the same step, and the engine computes them.
- A match is loaded only as far as that takes less time than computing it, by
  what was measured so far (load_or_recompute).
- What was computed on top of KV that lost something is stored with its quality
  (lineage).
- Pages are read for a store after the step that computed them, and before the
  next one writes any.

It does not: load or store states (Mamba), KV of context parallelism, quantized
KV, prompt embeddings (support, request_policy).
"""

from contextlib import suppress

try:
    from vllm.distributed.kv_transfer.kv_connector.factory import KVConnectorFactory

    from larder.vllm import compat
    from larder.vllm.connector import LarderConnector
except ImportError as e:
    if not (e.name or "").startswith("vllm."):
        raise
    import vllm

    text = f"vLLM {vllm.__version__} lacks what Larder's connector needs of it: {e}"
    raise ImportError(text, name=e.name, path=e.path) from e

# Where it is imported, so before Python refuses to make what lacks an abstract method.
compat.refuse_hooks(LarderConnector)
# MultiConnector finds the class of serialized stats by name only, and ends the
# front end where it does not. A second import finds it registered.
with suppress(ValueError):
    KVConnectorFactory.register_connector("LarderConnector", __name__, "LarderConnector")

__all__ = ["LarderConnector"]
