// Package rawtest is a client for tests of the server: it speaks the API by
// hand, without the client library, so that a test says exactly what is sent,
// wrong things included. Its helpers end the test on what they do not expect.
//
// A Client is for one goroutine.
package rawtest
