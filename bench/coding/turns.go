package coding

import "time"

// Turns are parts that measurements take one after another.
type Turns struct {
	// Bytes of each part, uncoded; there is at least one part.
	Bytes []int
	next  int
}

// Measure calls f for part after part, once at least, until it has worked for so
// long; the next measurement goes on with the next part. n is their uncoded bytes.
func (t *Turns) Measure(f func(i int) error, atLeast time.Duration) (n int64, took time.Duration, err error) {
	began := time.Now()
	for calls := 0; calls == 0 || took < atLeast; calls++ {
		i := t.next
		t.next = (i + 1) % len(t.Bytes)
		if err := f(i); err != nil {
			return n, took, err
		}
		n += int64(t.Bytes[i])
		took = time.Since(began)
	}
	return n, took, nil
}
