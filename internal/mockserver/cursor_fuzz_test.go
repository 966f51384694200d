package mockserver

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzCursor holds that a cursor leads to a place that there is, or nowhere.
func FuzzCursor(f *testing.F) {
	f.Add(makeCursor(3), 5)
	f.Add(makeCursor(-1), 5)
	f.Add("bGxtdTo", 0)
	f.Add("bGxtdTorMQ", 7)
	f.Fuzz(func(t *testing.T, cursor string, end int) {
		if place, err := readCursor(cursor, end); err == nil {
			require.True(t, 0 <= place && place <= end)
		}
	})
}
