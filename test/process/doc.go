// Package process tests larderd and its clients as the processes that they
// are: killed, stopped, flooded, short of descriptors.
//
// The daemon is the real binary. Clients that are to be killed or stopped are
// puppets: this test binary, started again, doing one step at a time as it is
// told over stdin. What a puppet stores is made by bench/workload from a seed,
// so whoever loads it can tell every byte that is not right.
package process
