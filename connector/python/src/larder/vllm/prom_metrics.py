"""The engine's Prometheus metrics about Larder."""

from __future__ import annotations

from typing import Any

from prometheus_client import Counter, Histogram
from vllm.distributed.kv_transfer.kv_connector.v1.metrics import KVConnectorPromMetrics

from larder.vllm.metric_table import METRICS, PREFIX


class PromMetrics(KVConnectorPromMetrics):
    """In the front end, for all of its engines. Every series is there from the
    start, so that a rate over the first events is right."""

    def __init__(
        self,
        vllm_config: Any,
        metric_types: dict[Any, Any],
        labelnames: list[str],
        per_engine_labelvalues: dict[int, list[object]],
    ) -> None:
        super().__init__(vllm_config, metric_types, labelnames, per_engine_labelvalues)
        self._series: dict[tuple[int, str], Any] = {}
        for metric in METRICS:
            names = [*labelnames, metric.label] if metric.label else list(labelnames)
            given: dict[str, Any] = {
                "name": PREFIX + metric.name, "documentation": metric.help, "labelnames": names,
            }  # fmt: skip
            if metric.buckets:
                family = metric_types[Histogram](**given, buckets=list(metric.buckets))
            else:
                family = metric_types[Counter](**given)
            for engine, values in per_engine_labelvalues.items():
                for key, labels in metric.series().items():
                    self._series[engine, key] = family.labels(*values, *labels)

    def observe(self, transfer_stats_data: dict[str, Any], engine_idx: int = 0) -> None:
        """Adds a report of one engine; what is not in the table is left out."""
        for key, count in transfer_stats_data.get("counts", {}).items():
            series = self._series.get((engine_idx, key))
            if series is not None:
                series.inc(count)
        for name, values in transfer_stats_data.get("seen", {}).items():
            series = self._series.get((engine_idx, name))
            if series is not None:
                for value in values:
                    series.observe(value)
