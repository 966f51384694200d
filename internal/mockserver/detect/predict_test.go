package detect

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A prediction is what then happens, and changes nothing of it.
func TestDriftPredict(t *testing.T) {
	t.Parallel()
	d := NewDrift([]string{"slack"}, []string{"slack", "github"})
	for i := range 12 {
		call := Call{Service: []string{"slack", "github", "other"}[i%3], Host: "h.example", Method: "POST",
			Path: fmt.Sprintf("/%c", 'a'+i)}
		novelty, total, finding := d.Predict(call)
		again, _, _ := d.Predict(call)
		assert.InDelta(t, novelty, again, 0)
		seen, found := d.Observe(call)
		assert.Equal(t, []any{seen, d.Total(), found}, []any{novelty, total, finding}, i)
	}
}

func TestBurstPredict(t *testing.T) {
	t.Parallel()
	var b Burst
	at, fired := time.Unix(0, 0), 0
	for i := range 4 * maxCalls {
		finding := b.PredictProxiedCall(at)
		require.Equal(t, finding, b.PredictProxiedCall(at))
		require.Equal(t, b.ProxiedCall(at), finding, i)
		if finding != nil {
			fired++
		}
		at = at.Add(time.Millisecond)
	}
	assert.Equal(t, 2, fired)
}
