package pii_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack/internal/mockserver/pii"
)

// values are things that are found wherever they stand alone, each with its placeholder's type.
var values = []struct{ text, kind string }{
	{"alice@example.com", "EMAIL"}, {"bob@mail.example.org", "EMAIL"}, {"用户@例子.公司", "EMAIL"},
	{"4111 1111 1111 1111", "CARD"}, {"5555555555554444", "CARD"}, {"3782-822463-10005", "CARD"},
	{"DE89 3704 0044 0532 0130 00", "IBAN"}, {"GB82WEST12345698765432", "IBAN"},
	{"203.0.113.9", "IP"}, {"2001:db8::8a2e:370:7334", "IP"},
	{"+46 70 174 06 05", "PHONE"}, {"+442079460958", "PHONE"},
	{"811218-9876", "NATIONAL_ID:SE"}, {"131052-308T", "NATIONAL_ID:FI"}, {"111.444.777-35", "NATIONAL_ID:BR"},
	{"123-45-6789", "NATIONAL_ID:US"}, {"RSSMRA85T10A562S", "NATIONAL_ID:IT"}, {"S1234567D", "NATIONAL_ID:SG"},
}

// fillers are what stands between them.
var fillers = []string{
	"hello", "é", "世界", "2024-01-02", "v1.2.3", "the number is", "\n", "SSN:", "ordinary", "[EMAIL_1]", "(", "x=", "👍",
	"\u200b", "\xff", "card", "...", "1,234", "personnummer",
}

// TestMixedText puts values between fillers at random and asks that exactly the values are replaced.
func TestMixedText(t *testing.T) {
	t.Parallel()
	r := redactor(t, nil)
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var in, want strings.Builder
		numbers := map[string]int{}
		counts := map[string]int{}
		var used []string
		for range 1 + rnd.IntN(12) {
			if rnd.IntN(2) == 0 {
				filler := fillers[rnd.IntN(len(fillers))] + " ; "
				in.WriteString(filler)
				want.WriteString(filler)
				continue
			}
			v := values[rnd.IntN(len(values))]
			if numbers[v.text] == 0 {
				counts[v.kind]++
				numbers[v.text] = counts[v.kind]
			}
			used = append(used, v.text)
			in.WriteString(v.text + " ; ")
			fmt.Fprintf(&want, "[%s_%d] ; ", v.kind, numbers[v.text])
		}
		out, findings := r.Redact(in.String())
		require.Equal(t, want.String(), out, "%q: %+v", in.String(), findings)
		for _, v := range used {
			require.NotContains(t, out, v)
		}
		checkInvariants(t, r, in.String())
	}
}

// TestBrokenText puts pieces of values and fillers together with all kinds of things between, at several thresholds.
func TestBrokenText(t *testing.T) {
	t.Parallel()
	var pieces []string
	for _, v := range values {
		pieces = append(pieces, v.text, v.text[:len(v.text)/2], v.text[len(v.text)/2:])
	}
	pieces = append(append(pieces, fillers...), "0046", "2001:db8::", "123456789", "01 02 03", "[CARD_2]", "[PHONE_", "tel")
	between := []string{
		"", " ", "-", ".", ",", ":", "/", "(", ")", "+", "@", "[", "]", "_", "0", "a", "\u200b", "SSN", "tel ", "ip ", "\n", "pnr ",
	}
	rnd := rand.New(rand.NewPCG(5, 6))
	for _, threshold := range []float64{0, 0.2, pii.DefaultThreshold, 0.6} {
		r := redactor(t, func(c *pii.Config) { c.Threshold = threshold })
		for range 1500 {
			var text strings.Builder
			for range 1 + rnd.IntN(10) {
				text.WriteString(pieces[rnd.IntN(len(pieces))])
				text.WriteString(between[rnd.IntN(len(between))])
			}
			checkInvariants(t, r, text.String())
		}
	}
}

// checkInvariants checks what holds for every text.
func checkInvariants(t *testing.T, r *pii.Redactor, in string) {
	t.Helper()
	out, findings := r.Redact(in)
	var rebuilt strings.Builder
	end := 0
	rest := out
	for _, f := range findings {
		require.True(t, f.Start >= end && f.Start < f.End && f.End <= len(in), "%q: %+v", in, findings)
		before := in[end:f.Start]
		require.True(t, strings.HasPrefix(rest, before), "%q became %q", in, out)
		rest = rest[len(before):]
		name := "[" + string(f.Kind)
		if f.Kind == pii.NationalID {
			name += ":" + f.Country
		}
		require.True(t, strings.HasPrefix(rest, name+"_"), "%q became %q", in, out)
		rest = rest[strings.IndexByte(rest, ']')+1:]
		if utf8.ValidString(in) {
			require.True(t, utf8.ValidString(in[f.Start:f.End]), "%q: %+v", in, f)
		}
		require.True(t, f.Confidence >= 0 && f.Confidence <= 1)
		rebuilt.WriteString(before)
		rebuilt.WriteString(in[f.Start:f.End])
		end = f.End
	}
	require.Equal(t, in[end:], rest, "%q became %q", in, out)
	require.Equal(t, in, rebuilt.String()+in[end:])
	again, more := r.Redact(out)
	require.Equal(t, out, again, "%q became %q, and then %+v", in, out, more)
}

// TestBytesOneByOne cuts a text at every byte.
func TestBytesOneByOne(t *testing.T) {
	t.Parallel()
	r := redactor(t, nil)
	text := "Åsa: asa@exämple.se, +46 70 174 06 05, ４１１１ １１１１ １１１１ １１１１, " +
		"personnummer 811218-9876 (SSN 123-45-6789), ::1"
	for i := range len(text) {
		checkInvariants(t, r, text[:i])
		checkInvariants(t, r, text[i:])
	}
}

// TestNumbersInRunningText counts random digits of every length that pass for something in text that says nothing of them.
func TestNumbersInRunningText(t *testing.T) {
	t.Parallel()
	r := redactor(t, nil)
	rnd := rand.New(rand.NewPCG(3, 4))
	found := 0
	const total = 20000
	for i := range total {
		number := make([]byte, 6+i%10) // 6 to 15 digits
		for j := range number {
			number[j] = byte('0' + rnd.IntN(10))
		}
		if _, findings := r.Redact("the value " + string(number) + " was stored"); len(findings) > 0 {
			found++
		}
	}
	assert.Less(t, found, total/200, "fewer than one in 200 bare numbers may pass for somebody's")
}

// TestManyPhones goes past the bound on checks: what looks like a phone number is still redacted.
func TestManyPhones(t *testing.T) {
	t.Parallel()
	r := redactor(t, nil)
	var text strings.Builder
	const total = 3000
	for i := range total {
		fmt.Fprintf(&text, "call %09d now\n", 200_000_000+7919*i)
	}
	_, findings := r.Redact(text.String())
	assert.Greater(t, len(findings), total*9/10)
}

func FuzzRedact(f *testing.F) {
	for _, v := range values {
		f.Add(v.text+" "+v.text, uint8(40))
	}
	for _, text := range benign {
		f.Add(text, uint8(40))
	}
	for _, text := range fillers {
		f.Add(text, uint8(0))
	}
	redactors := map[uint8]*pii.Redactor{}
	for threshold := range uint8(101) {
		redactors[threshold] = redactor(f, func(c *pii.Config) { c.Threshold = float64(threshold) / 100 })
	}
	f.Fuzz(func(t *testing.T, text string, threshold uint8) {
		checkInvariants(t, redactors[threshold%101], text)
	})
}

// BenchmarkRedact is for text with a finding in some 60 bytes, and with none.
func BenchmarkRedact(b *testing.B) {
	const plain = "The quarterly report shows growth of 12% across regions; see section 4.2 for the 2024-01-02 release. "
	const personal = plain + "Contact alice@example.com or +46 70 174 06 05, card 4111 1111 1111 1111, " +
		"personnummer 811218-9876. "
	units := map[string]string{"plain": plain, "personal": personal, "digits": "1 ", "phones": "tel +4670"}
	for name, unit := range units {
		for _, size := range []int{4 << 10, 64 << 10} {
			b.Run(fmt.Sprintf("%s/%dKB", name, size>>10), func(b *testing.B) {
				var text strings.Builder
				for i := 0; text.Len() < size; i++ {
					text.WriteString(unit)
					if name == "phones" {
						fmt.Fprintf(&text, "%07d ", i*7919)
					}
				}
				r := redactor(b, nil)
				b.SetBytes(int64(text.Len()))
				b.ReportAllocs()
				for b.Loop() {
					r.Redact(text.String())
				}
			})
		}
	}
}
