package rig

import "time"

// startTimeout bounds the start of whatever a benchmark starts, stopTimeout its
// end.
const (
	startTimeout = 60 * time.Second
	stopTimeout  = 20 * time.Second
)
