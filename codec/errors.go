package codec

import "github.com/larderkv/larder/api/fault"

// corrupt is for stored bytes that no encoder writes.
func corrupt(field, format string, args ...any) *fault.Error {
	return fault.New(fault.Corrupt, "object."+field, format, args...)
}

// invalid is for what the caller passed.
func invalid(field, format string, args ...any) *fault.Error {
	return fault.New(fault.Invalid, field, format, args...)
}
