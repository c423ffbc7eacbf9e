package nvme

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/larderkv/larder/storage/segment"
	"github.com/larderkv/larder/storage/tiertest"
)

// simulated is a store on a simulated disk, which can be killed.
type simulated struct {
	tested
	kill func()
}

func (s simulated) Kill() { s.kill() }

const configurations = 3 // in each run of the test

// configuration draws options that must make no difference to what a tier
// answers.
func configuration(r *rand.Rand) Options {
	one := func(values ...int64) int64 { return values[r.IntN(len(values))] }
	return Options{
		Segment: segment.Options{
			Budget: one(2<<20, 4<<20), Reserve: 1, SegmentBytes: one(64<<10, 128<<10, 256<<10), Lanes: int(one(1, 2, 3)),
			WritesInFlight: int(one(1, 4)), ReadsInFlight: int(one(1, 16)), HeaderCache: one(1, 8<<20), Buffered: one(0, 1) == 1,
			SyncInterval: time.Duration(one(int64(time.Millisecond), int64(time.Hour))), SyncBytes: one(1, 64<<20),
		},
		PendingTimeout: time.Hour, ForwardPercent: int(one(-1, 9, 50)), MaxParts: int(one(128, 0)), Tick: time.Duration(one(int64(time.Millisecond), int64(time.Hour))),
	}
}

// The same operations give the same answers in every configuration, whether the
// process ends in order or is killed: those of the model.
func TestExploreConfigurations(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	kills := 0
	for n := range configurations {
		o := configuration(r)
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Logf("%+v", o)
			machines := map[string]*machine{}
			tiertest.Explore(t, &tiertest.Subject{
				Name: "nvme", Layout: layout, Room: o.Segment.Budget, Least: 9 * 16896, Persistent: true,
				Open: func(tb tiertest.TB, dir string) tiertest.Store {
					if machines[dir] == nil {
						machines[dir] = newMachine(1)
					}
					m, o := machines[dir], o
					o.Segment.FS, o.IndexFS = m.segments, m.index
					s := open(tb, damageDir, o)
					return simulated{s, func() {
						kills++
						machines[dir] = m.killed()
						_ = s.Store.Close() // its device is gone
					}}
				},
			})
		})
	}
	if kills == 0 {
		t.Error("nothing was killed")
	}
	t.Logf("counted: %d configurations, %d kills, all answers those of the model", configurations, kills)
}
