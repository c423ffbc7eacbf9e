package doctor

// Level of a finding.
type Level string

// OK: nothing to do. Warn: Larder works, but worse or less safely than it
// could. Fail: something will not work.
const (
	OK   Level = "ok"
	Warn Level = "warn"
	Fail Level = "fail"
)

// Finding is one thing that was looked at.
type Finding struct {
	Check string `json:"check"`
	Level Level  `json:"level"`
	// Text says what was found, with the value and the limit.
	Text string `json:"text"`
	// Remedy says what to do; empty only where Level is OK.
	Remedy string `json:"remedy"`
}

func ok(check, text string) Finding { return Finding{Check: check, Level: OK, Text: text} }

// judge is OK with the text, or the level with the text and the remedy.
func judge(good bool, level Level, check, text, remedy string) Finding {
	if good {
		return ok(check, text)
	}
	return Finding{Check: check, Level: level, Text: text, Remedy: remedy}
}

// Failed reports whether a finding says that something will not work.
func Failed(findings []Finding) bool {
	for _, f := range findings {
		if f.Level == Fail {
			return true
		}
	}
	return false
}
