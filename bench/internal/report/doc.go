// Package report is what a benchmark run says: rows as JSON for programs and
// as a table for people, with bars met and missed.
package report
