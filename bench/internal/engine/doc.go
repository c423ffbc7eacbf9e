// Package engine is the benchmark set "engine": a real vLLM on CPU, with
// Larder beside the same engine without a connector, with vLLM's own example
// connector, and with LMCache's server where it is installed.
//
// Every figure of a hit is checked: both arms must have reused exactly the
// tokens that the row is about, else the row is an error and not a figure.
// Engines are processes; those of one row live at the same time, idle but for
// the arm that runs.
package engine
