// Package larderv1 is the generated code of Larder's API, version 1. The
// comments of the .proto files beside it are binding: units, ranges and kinds
// of errors.
//
// Everything but this file comes from `make proto`. Messages are plain
// data: one goroutine at a time, and no rules of their own beyond the types;
// limits are checked by whoever receives a message.
package larderv1
