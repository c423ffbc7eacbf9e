// Package offheap keeps large arrays of plain values outside the Go heap, in
// anonymous memory that the kernel hands out page by page when it is first
// touched. So a table may be dimensioned for the most that can ever be, costs
// what is used, never moves and is never scanned by the garbage collector.
//
// Element types must not contain pointers. An Array does no locking; Close
// while another goroutine reads is a fault. It does not shrink.
package offheap
