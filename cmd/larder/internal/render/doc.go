// Package render prints what the larder command has to say: as JSON for
// programs, as aligned text for people.
//
// The JSON of an API message is stable: fields by their proto names, always
// present, 64-bit numbers as numbers, bytes in hex, enums by their short names
// in lower case. It keeps no state.
package render
