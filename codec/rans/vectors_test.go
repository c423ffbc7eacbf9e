package rans_test

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"github.com/larderkv/larder/codec/rans"
	"github.com/stretchr/testify/require"
)

// vectors is testdata/vectors.json.
type vectors struct {
	Format string
	Tables []struct {
		Name   string
		Counts [rans.Slots]uint32
		Table  hexed
	}
	Chains []struct {
		Name   string
		States hexed
		Bodies []struct {
			Runs []struct {
				Table hexed
				Steps int
			}
			Symbols, Body hexed
		}
	}
	Ternary []struct {
		Name                            string
		Counts                          [][3]uint32
		Frequencies                     []rans.Ternary
		Contexts, Symbols, States, Body hexed
	}
}

type hexed []byte

func (h *hexed) UnmarshalText(b []byte) (err error) {
	*h, err = hex.DecodeString(string(b))
	return err
}

func readVectors(t tester) (v vectors) {
	t.Helper()
	b, err := os.ReadFile("testdata/vectors.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &v))
	require.Equal(t, "rans64/1", v.Format)
	require.NotEmpty(t, v.Tables)
	require.NotEmpty(t, v.Chains)
	require.NotEmpty(t, v.Ternary)
	return v
}

func TestVectorTables(t *testing.T) {
	for _, v := range readVectors(t).Tables {
		require.Equal(t, []byte(v.Table), tableOf(t, &v.Counts).AppendTo(nil), v.Name)
	}
}

func TestVectorChains(t *testing.T) {
	for _, v := range readVectors(t).Chains {
		t.Run(v.Name, func(t *testing.T) {
			runs := make([][]rans.Run, len(v.Bodies))
			for i, b := range v.Bodies {
				for _, r := range b.Runs {
					tab := new(rans.Table)
					_, err := tab.Read(r.Table)
					require.NoError(t, err)
					runs[i] = append(runs[i], rans.Run{Table: tab, Steps: r.Steps})
				}
			}
			for _, c := range coders(t) {
				var st rans.State
				st.Reset()
				for i := len(v.Bodies) - 1; i >= 0; i-- {
					body, err := c.Encode(nil, &st, runs[i], v.Bodies[i].Symbols)
					require.NoError(t, err)
					require.Equal(t, v.Bodies[i].Body, hexed(append([]byte{}, body...)), "%v: body %d", c.Kernel(), i)
				}
				require.Equal(t, v.States, hexed(st.AppendTo(nil)), c.Kernel())
				for i, b := range v.Bodies {
					dst := make([]byte, len(b.Symbols))
					require.NoError(t, c.Decode(dst, &st, runs[i], b.Body))
					require.Equal(t, b.Symbols, hexed(dst), "%v: body %d", c.Kernel(), i)
				}
				require.True(t, st.AtStart())
			}
		})
	}
}

func TestVectorTernary(t *testing.T) {
	for _, v := range readVectors(t).Ternary {
		t.Run(v.Name, func(t *testing.T) {
			for i := range v.Counts {
				var f rans.Ternary
				rans.NormalizeTernary(&f, &v.Counts[i])
				require.Equal(t, v.Frequencies[i], f)
			}
			tab := ternary(t, v.Frequencies)
			for _, c := range coders(t) {
				var st rans.State
				st.Reset()
				body, err := c.EncodeTernary(nil, &st, tab, v.Contexts, v.Symbols)
				require.NoError(t, err)
				require.Equal(t, v.Body, hexed(append([]byte{}, body...)), c.Kernel())
				require.Equal(t, v.States, hexed(st.AppendTo(nil)), c.Kernel())
				dst := make([]byte, len(v.Symbols))
				require.NoError(t, c.DecodeTernary(dst, &st, tab, v.Contexts, body))
				require.Equal(t, v.Symbols, hexed(dst), c.Kernel())
			}
		})
	}
}
