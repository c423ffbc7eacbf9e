// Package metrics counts what the daemon does and shows it to Prometheus, on
// loopback only.
//
// Invariants:
//
//   - Counting never blocks and allocates nothing: it is done on the path of a
//     match.
//   - Labels have few, fixed values: kinds, reasons, states, and the configured
//     paths of the nvme tier's devices. No names of tenants, namespaces, callers
//     or keys, which are without bound or secret.
//   - Storage does not know this package: it returns figures, and times a device
//     through an observer of its own.
//   - A help text says what the figure is and, where an operator can do
//     something about it, what.
//   - Gauges are read when they are asked for, so that they cannot drift from
//     the arena's own figures.
//
// Admin.Status shows some of these figures (Meter.Counters).
package metrics
