package daemon

import (
	"bytes"
	"fmt"
	"os/exec"
	"path/filepath"
)

// Build builds larderd into dir, from the module that the working directory
// belongs to, and returns its path. The Go build cache makes it quick.
func Build(dir string) (string, error) { return build(dir, "cmd/larderd") }

// BuildSlow is Build for a larderd on a slow disk (test/slowdisk).
func BuildSlow(dir string) (string, error) { return build(dir, "test/slowdisk") }

func build(dir, name string) (string, error) {
	path := filepath.Join(dir, filepath.Base(name))
	out, err := exec.Command("go", "build", "-o", path, "github.com/larderkv/larder/"+name).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, bytes.TrimSpace(out))
	}
	return path, nil
}
