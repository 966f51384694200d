package bench

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack/internal/mockserver/inject"
)

func sized(piece string, size int) string { return strings.Repeat(piece, size/len(piece)+1)[:size] }

// The injection scan of one text, and of one 64 times as long. big/small is how much more a byte of the long one costs; 1 is
// linear. Texts that were made to cost much are in BenchmarkScan of the scanner's package.
func BenchmarkScanLinear(b *testing.B) {
	scanner, err := inject.New(inject.DefaultConfig())
	require.NoError(b, err)
	const factor = 64
	small := sized("Hi Maria, thanks for the quick turnaround on ticket 48213. The export of 1,204 rows finished at 11:05. ", 16<<10)
	big := strings.Repeat(small, factor)
	var perSmall, perBig time.Duration
	b.SetBytes(int64(len(big) + factor*len(small)))
	for b.Loop() {
		began := time.Now()
		for range factor {
			scanner.Scan(b.Context(), small)
		}
		between := time.Now()
		scanner.Scan(b.Context(), big)
		perSmall, perBig = perSmall+between.Sub(began), perBig+time.Since(between)
	}
	bytes := float64(b.N * len(big))
	b.ReportMetric(float64(perSmall)/bytes, "small-ns/B")
	b.ReportMetric(float64(perBig)/bytes, "big-ns/B")
	b.ReportMetric(float64(perBig)/float64(perSmall), "big/small")
}
