package stack_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

// A passport that comes for the first time, beside the bare signature of the same message: ns/op is both together, bare-ns and
// cold-ns are the medians of each, which a busy machine moves little, and cold/bare is what the verification costs more.
func BenchmarkVerifyPassportCold(b *testing.B) {
	f := newForger("k1")
	v := f.verifier(b)
	const kept = 3000 // more than a verifier remembers, so that each is new when its turn comes
	type passport struct {
		token             stack.Secret
		signed, signature []byte
	}
	passports := make([]passport, kept)
	for i := range passports {
		token := f.sign(f.header(), strings.Replace(goodClaims(time.Now()), "pp_1", fmt.Sprintf("pp_%d", i), 1))
		signed, signature, _ := lastCut(token)
		mac, err := base64.RawURLEncoding.DecodeString(signature)
		require.NoError(b, err)
		passports[i] = passport{stack.NewSecret(token), []byte(signed), mac}
	}
	var bare, cold []time.Duration
	public := publicOf(f.key)
	b.ReportAllocs()
	for b.Loop() {
		p := &passports[len(bare)%kept]
		began := time.Now()
		good := ed25519.Verify(public, p.signed, p.signature)
		between := time.Now()
		_, err := v.Verify(b.Context(), p.token)
		cold, bare = append(cold, time.Since(between)), append(bare, between.Sub(began))
		if !good || err != nil {
			b.Fatal(good, err)
		}
	}
	b.ReportMetric(median(bare), "bare-ns")
	b.ReportMetric(median(cold), "cold-ns")
	b.ReportMetric(median(cold)/median(bare), "cold/bare")
}

func median(times []time.Duration) float64 {
	slices.Sort(times)
	return float64(times[len(times)/2])
}

// A passport that came before; cached-ns is the median again.
func BenchmarkVerifyPassportCached(b *testing.B) {
	f := newForger("k1")
	v := f.verifier(b)
	token := stack.NewSecret(f.good())
	_, err := v.Verify(b.Context(), token)
	require.NoError(b, err)
	var cached []time.Duration
	b.ReportAllocs()
	for b.Loop() {
		began := time.Now()
		_, err := v.Verify(b.Context(), token)
		cached = append(cached, time.Since(began))
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(median(cached), "cached-ns")
}
