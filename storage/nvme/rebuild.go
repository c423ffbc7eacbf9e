package nvme

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/storage/index"
	"github.com/larderkv/larder/storage/segment"
)

// Rebuild makes the index of a store anew from its segments, as Open does where
// it cannot be read, and closes the store. Parts come back that were deleted or
// copied elsewhere where the file system did not give their space back, or their
// process was killed before it asked for that, and nothing else: what was punched
// out stays away. Segments that their process left open are sealed.
//
// The old index is set aside first and removed when the new one is complete. A
// process that ends at any instant leaves a store that opens: what the new index
// does not vouch for yet is scanned then.
//
// Progress and trouble are those of Options: a segment that the device cannot
// read is trouble, and the next start tries again.
//
// Miss: there is no store in dir. Busy: a process has it open. Other errors are
// those of Open.
func Rebuild(ctx context.Context, dir string, progress func(done, total int), trouble func(kind string, err error)) (Report, error) {
	if err := isStore(dir); err != nil {
		return Report{}, err
	}
	if err := notInUse(dir); err != nil {
		return Report{}, err
	}
	bytes, err := fileBytes(filepath.Join(dir, segmentsName))
	if err != nil {
		return Report{}, fault.Wrap(fault.Unavailable, err, "nvme.store", "the segments cannot be measured").With(dir, nil)
	}
	s, report, err := Open(ctx, dir, Options{
		Segment: segment.Options{
			// Nothing is written but footers. The directory needs room for a part a
			// page, and no more than the files have.
			Budget: max(bytes, 1<<20), SegmentBytes: 64 << 10, Buffered: true,
		},
		Progress: progress, Trouble: trouble,
		// Compaction is the daemon's business.
		Tick:    24 * time.Hour,
		rebuild: true,
	})
	if err != nil {
		return report, err
	}
	lost := s.index.Err()
	if err := errors.Join(lost, s.Close()); err != nil {
		return report, err
	}
	return report, index.RemoveAside(filepath.Join(dir, indexName), nil)
}

func fileBytes(dir string) (n int64, err error) {
	list, err := os.ReadDir(dir)
	for _, e := range list {
		info, ierr := e.Info()
		if ierr != nil {
			return n, ierr
		}
		n += info.Size()
	}
	return n, err
}
