package storage

import "strconv"

// Outcome says what became of a part that was to be stored; the values are
// those of larder.v1.CommitOutcome.
type Outcome uint8

const (
	// Kept: the chunk waits for other parts and is invisible until then.
	Kept Outcome = 1
	// Published: kept, and the chunk is complete and visible.
	Published Outcome = 2
	// Duplicate: the same bytes were there before.
	Duplicate Outcome = 3
	// Conflict: other bytes of the same or better quality were there before;
	// they stay.
	Conflict Outcome = 4
	// Rejected: not kept; an error says why.
	Rejected Outcome = 5
)

var outcomeNames = [...]string{"", "kept", "published", "duplicate", "conflict", "rejected"}

// String returns the outcome's name as metrics labels show it.
func (o Outcome) String() string {
	if o < Kept || o > Rejected {
		return "outcome(" + strconv.Itoa(int(o)) + ")"
	}
	return outcomeNames[o]
}
