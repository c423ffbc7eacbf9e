package doctor

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// probe prints one "name version" a line, or fails with Python's own words.
const probe = `import importlib.metadata as m
import grpc, google.protobuf, numpy, larder.client
for n in ("larder", "grpcio", "protobuf", "numpy"):
    try: print(n, m.version(n))
    except m.PackageNotFoundError: print(n, "source")`

// least is the oldest version that the Python package works with.
var least = map[string][2]int{"grpcio": {1, 76}, "protobuf": {6, 31}}

// Python looks whether the interpreter can import the package.
func Python(ctx context.Context, h Host, interpreter string) []Finding {
	out, err := h.Run(ctx, interpreter, "-c", probe)
	if err != nil {
		lines := strings.Split(out, "\n")
		text := lines[len(lines)-1]
		if text == "" {
			text = err.Error()
		}
		return []Finding{{"python.import", Warn, interpreter + ": " + text,
			"install the package larder into the engine's environment, and name its interpreter with --python"}}
	}
	findings := []Finding{ok("python.import", interpreter+" imports larder")}
	for line := range strings.Lines(out) {
		name, version, _ := strings.Cut(strings.TrimSpace(line), " ")
		want, known := least[name]
		if !known {
			findings = append(findings, ok("python."+name, version))
			continue
		}
		findings = append(findings, judge(atLeast(version, want[0], want[1]), Fail, "python."+name,
			fmt.Sprintf("%s, at least %d.%d is needed", version, want[0], want[1]),
			"pip install '"+name+">="+strconv.Itoa(want[0])+"."+strconv.Itoa(want[1])+"' in the engine's environment, unless the engine pins an older one"))
	}
	return findings
}
