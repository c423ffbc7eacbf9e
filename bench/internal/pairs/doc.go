// Package pairs measures one thing against another in one run.
//
// Arms run interleaved, forward and then backward (A-B-M-M-B-A), so that a
// drift of the machine hits all of them alike. Each pass forward or backward
// gives one pair of our figure and each baseline; the ratio reported is the
// median over the pairs, with a 90 % bootstrap interval. Two neighbouring arms
// of the same kind give one control pair: their median ratio must be close to
// 1, else the machine was too restless and the row is measured again.
//
// The package does not know what an arm does and starts no goroutines. A
// Runner is used by one goroutine.
package pairs
