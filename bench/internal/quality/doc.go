// Package quality runs the set codec-quality: what coding costs a model, by
// bench/py/codec_quality.py and the command larder of this build. The rows are
// the script's; this package starts it and reads them.
package quality
