package config

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Print writes every key with its value and source, secrets masked.
func (l *Loaded) Print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "KEY\tVALUE\tSOURCE")
	for _, o := range l.Options {
		fmt.Fprintf(t, "%s\t%s\t%s\n", o.Key, quoteEmpty(o.Value()), o.Source)
	}
	return t.Flush()
}

func quoteEmpty(s string) string {
	if s == "" {
		return `""`
	}
	return s
}

// Example writes a configuration file in which every option is explained and
// commented out with its default.
func Example(w io.Writer) error {
	var c Config
	var b strings.Builder
	b.WriteString("# Configuration of larderd. Every option stands here with its default;\n" +
		"# the same names work as flags (--host.bytes) and in the environment\n" +
		"# (LARDER_HOST_BYTES). Flags go over the environment, which goes over this file.\n" +
		"# In flags and variables, lists have ';' between their entries.\n")
	section := ""
	for _, o := range table(&c) {
		path := strings.Split(o.Key, ".")
		indent := strings.Repeat("  ", len(path)-1)
		if parent := strings.Join(path[:len(path)-1], "."); parent != section {
			b.WriteString("\n")
			// Only the levels that are not open already.
			open := strings.Split(section, ".")
			for i, p := range path[:len(path)-1] {
				if i >= len(open) || open[i] != p || section == "" {
					fmt.Fprintf(&b, "%s%s:\n", strings.Repeat("  ", i), p)
				}
			}
			section = parent
		}
		lines := wrap(fmt.Sprintf("%s (%s)", o.Help, o.value.Type()), 96-len(indent))
		if o.Hazard != "" {
			lines = append(lines, wrap("Hazard: "+o.Hazard, 96-len(indent))...)
		}
		b.WriteString("\n")
		for _, line := range lines {
			fmt.Fprintf(&b, "%s# %s\n", indent, line)
		}
		v := o.Default
		if strings.HasPrefix(o.value.Type(), "list") {
			v = "[]"
		}
		fmt.Fprintf(&b, "%s# %s: %s\n", indent, path[len(path)-1], quoteEmpty(v))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// wrap breaks text at spaces into lines of at most width bytes.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
