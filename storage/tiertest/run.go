package tiertest

import "testing"

// Check is one property of a tier.
type Check struct {
	Name string
	// Persistent: only for tiers that outlive a process.
	Persistent bool
	run        func(c *check)
}

// Checks are all of them.
func Checks() []Check {
	return []Check{
		{Name: "nothing is there", run: checkEmpty},
		{Name: "what was put", run: checkBytes},
		{Name: "refused", run: checkRefused},
		{Name: "complete chunks only", run: checkComplete},
		{Name: "first stays", run: checkFirstStays},
		{Name: "better quality replaces", run: checkBetter},
		{Name: "scopes", run: checkScopes},
		{Name: "delete", run: checkDelete},
		{Name: "damage", run: checkDamage},
		{Name: "full", run: checkFull},
		{Name: "concurrent", run: checkConcurrent},
		{Name: "restart", Persistent: true, run: checkRestart},
	}
}

// Run the check on the subject.
func (k Check) Run(tb TB, s *Subject) {
	c := &check{TB: tb, s: s, dir: tb.TempDir()}
	c.st = s.Open(tb, c.dir)
	defer func() { c.st.Close() }()
	k.run(c)
}

// Run runs the whole suite.
func Run(t *testing.T, s *Subject) {
	for _, k := range Checks() {
		if k.Persistent && !s.Persistent {
			continue
		}
		t.Run(k.Name, func(t *testing.T) { k.Run(t, s) })
	}
	t.Run("explore", func(t *testing.T) { Explore(t, s) })
}
