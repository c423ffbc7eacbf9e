package config

import "slices"

// nearest is the entry of list with the smallest edit distance to s; the first
// one of several.
func nearest(s string, list []string) string {
	best, at := 1<<30, ""
	for _, e := range list {
		if d := editDistance(s, e); d < best {
			best, at = d, e
		}
	}
	return at
}

// editDistance counts inserted, deleted and replaced bytes. Inputs over 256
// bytes are cut: they are no near misses of anything.
func editDistance(a, b string) int {
	a, b = a[:min(len(a), 256)], b[:min(len(b), 256)]
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	next := slices.Clone(row)
	for i := range len(a) {
		next[0] = i + 1
		for j := range len(b) {
			change := row[j]
			if a[i] != b[j] {
				change++
			}
			next[j+1] = min(change, row[j+1]+1, next[j]+1)
		}
		row, next = next, row
	}
	return row[len(b)]
}
