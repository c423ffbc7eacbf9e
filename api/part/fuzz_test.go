package part

import (
	"bytes"
	"testing"

	"github.com/minio/crc64nvme"
)

// FuzzDecode: whatever decodes encodes to the same bytes and is within the
// limits. A second try has the checksum put right, else the fuzzer would never
// get past it.
func FuzzDecode(f *testing.F) {
	d, _ := filled(f, 3, 300)
	f.Add(d.AppendTo(nil))
	d.Encoding, d.StoredLength = 2, 1
	f.Add(d.AppendTo(nil))
	f.Add(coded(f).AppendTo(nil))
	f.Add(bundled(f).AppendTo(nil))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		check(t, b)
		if len(b) < 8 {
			return
		}
		b = bytes.Clone(b)
		covered := b[:len(b)-8]
		sum := crc64nvme.Checksum(covered)
		for i := range 8 {
			b[len(covered)+i] = byte(sum >> (8 * i))
		}
		check(t, b)
	})
}

func check(t *testing.T, b []byte) {
	var d Descriptor
	if err := Decode(&d, b); err != nil {
		return
	}
	if !bytes.Equal(d.AppendTo(nil), b) {
		t.Fatalf("decodes to something else: %x", b)
	}
	if err := VerifySeal(&d); err != nil {
		t.Fatal(err)
	}
	if d.Coded() {
		if d.StoredLength >= d.RawLength || len(d.Table) < 2 || len(d.Table) > MaxCodecTable {
			t.Fatalf("%+v", d)
		}
		_ = Verify(&d, make([]byte, d.StoredLength))
	}
	if d.Raw() {
		if int(d.RawLength)%len(d.Table) != 0 || d.RawLength > MaxLength {
			t.Fatalf("%+v", d)
		}
		// Must answer, whatever the table says.
		_ = VerifyRange(&d, make([]byte, int(d.RawLength)/len(d.Table)), 0, 1)
	}
}
