package config

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"

	"github.com/larderkv/larder/api/fault"
)

// envPrefix begins the variables: host.bytes is LARDER_HOST_BYTES.
const envPrefix = "LARDER_"

// envFile is the one variable that is no option: the path of the file.
const envFile = envPrefix + "CONFIG"

// serviceLink is what Kubernetes puts into the environment of pods for a Service
// named larder or larder-something. No option ends like that.
var serviceLink = regexp.MustCompile(`^LARDER_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

// Loaded is a configuration together with where its values came from.
type Loaded struct {
	Config
	Options []*Option
}

// Sources are where values come from, the later over the earlier. Zero fields
// are left out.
type Sources struct {
	// File is the path of a YAML file; empty: what LARDER_CONFIG names.
	File string
	// Environ is in the form of os.Environ.
	Environ []string
	// Flags is a set that AddFlags filled and somebody parsed.
	Flags *pflag.FlagSet
}

// AddFlags defines a flag for every option.
func AddFlags(fs *pflag.FlagSet) {
	var c Config
	for _, o := range table(&c) {
		// Bool flags take a value like all others, so that every flag can be
		// written as two words.
		fs.Var(&flagValue{kind: o.value.Type(), text: o.Default}, o.Key, o.usage())
	}
}

// flagValue only keeps the text: values are checked in Load, all sources alike.
type flagValue struct{ kind, text string }

func (f *flagValue) Set(s string) error { f.text = s; return nil }
func (f *flagValue) String() string     { return f.text }
func (f *flagValue) Type() string       { return f.kind }

// Load merges the sources and checks the result. Errors are of kind INVALID
// and name the key.
func Load(s Sources) (*Loaded, error) {
	l := &Loaded{}
	l.Options = table(&l.Config)
	byEnv := make(map[string]*Option, len(l.Options))
	for _, o := range l.Options {
		byEnv[o.Env()] = o
	}

	fromEnv := map[string]string{}
	for _, e := range s.Environ {
		name, v, _ := strings.Cut(e, "=")
		if !strings.HasPrefix(name, envPrefix) {
			continue
		}
		if name == envFile {
			if s.File == "" {
				s.File = v
			}
			continue
		}
		if byEnv[name] == nil {
			if serviceLink.MatchString(name) {
				return nil, fault.New(fault.Invalid, name, "environment: not an option of larderd; Kubernetes sets it in every pod beside a Service "+
					"whose name begins with larder: set enableServiceLinks: false in the pod's spec, or rename the Service").With(v, nil)
			}
			return nil, unknown(name, "environment", append(envNames(l.Options), envFile))
		}
		fromEnv[name] = v
	}

	if s.File != "" {
		if err := l.file(s.File); err != nil {
			return nil, err
		}
	}
	for _, o := range l.Options {
		if v, ok := fromEnv[o.Env()]; ok {
			if err := o.set(v, "env "+o.Env()); err != nil {
				return nil, err
			}
		}
	}
	if s.Flags != nil {
		for _, o := range l.Options {
			if f := s.Flags.Lookup(o.Key); f != nil && f.Changed {
				if err := o.set(f.Value.String(), "flag --"+o.Key); err != nil {
					return nil, err
				}
			}
		}
	}
	return l, l.check()
}

func (l *Loaded) file(path string) error {
	k := koanf.New(".")
	if err := k.Load(file.Provider(path), yaml.Parser()); err != nil {
		return fault.Wrap(fault.Invalid, err, "", "configuration file %s", path)
	}
	for key := range k.Raw() {
		if strings.Contains(key, ".") {
			return fault.New(fault.Invalid, key, "file %s: write the key as sections, not with dots", path)
		}
	}
	flat := k.All()
	keys := make([]string, 0, len(flat))
	for key := range flat {
		keys = append(keys, key)
	}
	slices.Sort(keys) // the same error first, every time
	for _, key := range keys {
		at := slices.IndexFunc(l.Options, func(o *Option) bool { return o.Key == key })
		if at < 0 {
			if flat[key] == nil && l.isSection(key) {
				continue // a section with all of its lines commented out
			}
			if l.isSection(key) {
				return fault.New(fault.Invalid, key, "file %s: a section, not a value", path).With(flat[key], nil)
			}
			return unknown(key, "file "+path, l.keys())
		}
		if err := l.Options[at].set(flat[key], "file "+path); err != nil {
			return err
		}
	}
	return nil
}

func (l *Loaded) keys() []string {
	keys := make([]string, len(l.Options))
	for i, o := range l.Options {
		keys[i] = o.Key
	}
	return keys
}

func (l *Loaded) isSection(key string) bool {
	return slices.ContainsFunc(l.Options, func(o *Option) bool { return strings.HasPrefix(o.Key, key+".") })
}

func envNames(t []*Option) []string {
	names := make([]string, len(t))
	for i, o := range t {
		names[i] = o.Env()
	}
	return names
}

func unknown(key, source string, valid []string) error {
	return fault.New(fault.Invalid, key, "%s: unknown key %q; the nearest valid one is %q", source, key, nearest(key, valid))
}

// Env is the option's environment variable.
func (o *Option) Env() string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(o.Key, ".", "_"))
}

func (o *Option) set(v any, source string) error {
	if err := o.value.Set(v); err != nil {
		return fault.New(fault.Invalid, o.Key, "%s: %s", source, err)
	}
	o.Source = source
	return nil
}

// Value is the option's printed value; secrets are masked.
func (o *Option) Value() string {
	v := o.value.String()
	if o.Secret && v != "" {
		return "******"
	}
	return v
}

func (o *Option) usage() string {
	s := o.Help
	if o.Hazard != "" {
		s += " Hazard: " + o.Hazard
	}
	return fmt.Sprintf("%s [%s]", s, o.Env())
}
