package inject_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/getstack-go/stack/internal/mockserver/inject"
)

// letter is a benign text of a few sentences, with quotes, numbers and names.
const letter = `Hi Maria, thanks for the quick turnaround on ticket 48213. I went through the staging logs with Oskar this
morning and the retry storm starts at 09:42, right after the deploy of billing v2.14.3. The previous release did not have
the new timeout, so the rule of thumb "back off, then give up" never applied. Could you send me the dashboard link and the
instructions for the rollback? If the customer asks, please tell them that the export of 1,204 rows finished at 11:05 and
that nothing was lost. The invoice (INV-2041) is at https://billing.example.com/i/2041?ref=mail%20link&x=1.

`

// adversarial are texts made to cost much, in pieces to repeat.
var adversarial = map[string]string{
	"words that begin phrases": "ignore disregard forget reveal print you act ",
	"no spaces":                "ignoreallpreviousinstructions",
	"single letters":           "i g n o r e ",
	"leetspeak":                "1gn0r3 pr3v10us ",
	"percent":                  "%69%67%6e%6f%72%65%2520",
	"hex":                      "69676e6f726520616c6c ",
	"base64":                   base64.StdEncoding.EncodeToString([]byte("hello there, all is well ")) + " ",
	"nested base64": base64.StdEncoding.EncodeToString([]byte(
		base64.StdEncoding.EncodeToString([]byte("hello there, all is well")))) + "\n",
	"look-alikes": "іgnоrе рrеvіоus ",
	"invisible":   "i\u200bg\u200bn\u200bo\u200br\u200be ",
	"ROT13":       "vtaber cerivbhf ",
	"reversed":    "erongi suoiverp ",
	"quotes":      `"a" `,
	"one byte":    "a",
	"emoji":       "👩\u200d💻\ufe0f ",
	"all":         "vtaber erongi 1gn0r3 %41 і\u200b i g n o r e aGVsbG8gdGhlcmUgYWxs ",
}

func sized(piece string, size int) string {
	return strings.Repeat(piece, size/len(piece)+1)[:size]
}

func BenchmarkScan(b *testing.B) {
	scanner, err := inject.New(inject.DefaultConfig())
	if err != nil {
		b.Fatal(err)
	}
	texts := map[string]string{"benign": letter}
	for name, piece := range adversarial {
		texts[name] = piece
	}
	for name, piece := range texts {
		for _, size := range []int{4 << 10, 64 << 10, 1 << 20} {
			b.Run(fmt.Sprintf("%s/%dKB", name, size>>10), func(b *testing.B) {
				text := sized(piece, size)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					scanner.Scan(b.Context(), text)
				}
			})
		}
	}
}
