package detect_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/detect"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func TestBurstLevels(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		observe           func(*detect.Burst, time.Time) *detect.Finding
		warning, critical int // the event that fires, counted from 1
		source            string
		reason            string
	}{
		"credential reads": {(*detect.Burst).CredentialRead, 11, 31, "credential_read", "11_credential_read_in_30s"},
		"proxied calls":    {(*detect.Burst).ProxiedCall, 61, 181, "proxied_call", "61_proxied_call_in_30s"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var b detect.Burst
			for i := 1; i <= 2*tt.critical; i++ {
				f := tt.observe(&b, epoch)
				switch i {
				case tt.warning:
					require.NotNil(t, f)
					assert.Equal(t, stack.SeverityWarning, f.Severity)
					assert.Equal(t, detect.CredentialBurst, f.Signal)
					assert.Equal(t, "credential_burst_fire:"+tt.reason, f.Reason())
					assert.Equal(t, map[string]any{
						"credential_count": tt.warning, "time_window_seconds": 30, "source": tt.source,
					}, f.Metadata)
				case tt.critical:
					require.NotNil(t, f)
					assert.Equal(t, stack.SeverityCritical, f.Severity)
					assert.Equal(t, tt.critical, f.Metadata["credential_count"])
				default:
					require.Nil(t, f, "event %d", i)
				}
			}
		})
	}
}

func TestBurstCountsReadsAndCallsApart(t *testing.T) {
	t.Parallel()
	var b detect.Burst
	for range 10 {
		assert.Nil(t, b.CredentialRead(epoch))
	}
	for range 60 {
		assert.Nil(t, b.ProxiedCall(epoch))
	}
}

func TestBurstWindow(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		age   time.Duration
		fires bool
	}{
		"just inside": {30*time.Second - 1, true},
		"at the edge": {30 * time.Second, false},
		"outside":     {time.Minute, false},
		"clock back":  {-time.Hour, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var b detect.Burst
			for range 10 {
				require.Nil(t, b.CredentialRead(epoch))
			}
			assert.Equal(t, tt.fires, b.CredentialRead(epoch.Add(tt.age)) != nil)
		})
	}
}

func TestBurstRearms(t *testing.T) {
	t.Parallel()
	var b detect.Burst
	burst := func(at time.Time, n int) (fired []stack.Severity) {
		for range n {
			if f := b.CredentialRead(at); f != nil {
				fired = append(fired, f.Severity)
			}
		}
		return fired
	}
	assert.Equal(t, []stack.Severity{"warning", "critical"}, burst(epoch, 50))
	assert.Empty(t, burst(epoch.Add(29*time.Second), 11), "still in the first burst")
	assert.Empty(t, burst(epoch.Add(35*time.Second), 19), "from 11 to 30: the warning stands")
	assert.Equal(t, []stack.Severity{"critical"}, burst(epoch.Add(35*time.Second), 1), "the critical level is reached anew")
	assert.Equal(t, []stack.Severity{"warning"}, burst(epoch.Add(2*time.Minute), 11), "all quiet in between")
}

func TestBurstSteadyRateFiresOnce(t *testing.T) {
	t.Parallel()
	var b detect.Burst
	fired := 0
	for i := range 1000 {
		if b.CredentialRead(epoch.Add(time.Duration(i)*2800*time.Millisecond)) != nil {
			fired++
		}
	}
	assert.Equal(t, 1, fired)
}

func TestFailureBurst(t *testing.T) {
	t.Parallel()
	t.Run("fires at the twentieth", func(t *testing.T) {
		t.Parallel()
		var b detect.FailureBurst
		for i := 1; i <= 60; i++ {
			f := b.Observe(epoch.Add(time.Duration(i) * time.Second))
			if i != 20 {
				require.Nil(t, f, "failure %d", i)
				continue
			}
			require.NotNil(t, f)
			assert.Equal(t, detect.AuthFailureBurst, f.Signal)
			assert.Equal(t, stack.SeverityWarning, f.Severity)
			assert.Equal(t, "auth_failure_burst_fire:20_failures_in_60s", f.Reason())
			assert.Equal(t, map[string]any{"failure_count": 20, "time_window_seconds": 60}, f.Metadata)
		}
	})
	t.Run("nineteen in the window do not", func(t *testing.T) {
		t.Parallel()
		var b detect.FailureBurst
		for range 19 {
			require.Nil(t, b.Observe(epoch))
		}
		for range 19 {
			require.Nil(t, b.Observe(epoch.Add(time.Minute)))
		}
		assert.NotNil(t, b.Observe(epoch.Add(2*time.Minute-1)))
	})
}

// TestBurstAgainstCounting compares with a plain count over all times.
func TestBurstAgainstCounting(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var b detect.Burst
		var times []time.Time
		now, before := epoch, 0
		pace := time.Duration(random.Int64N(int64(4*time.Second))) + 1
		for range 200 {
			now = now.Add(time.Duration(random.Int64N(int64(pace))))
			times = append(times, now)
			count := 0
			for _, at := range times {
				if now.Sub(at) < 30*time.Second {
					count++
				}
			}
			level := 0
			if count > 10 {
				level++
			}
			if count > 30 {
				level++
			}
			f := b.CredentialRead(now)
			require.Equal(t, level > before, f != nil)
			if f != nil {
				require.Equal(t, level == 2, f.Severity == stack.SeverityCritical)
			}
			before = level
		}
	}
}

func BenchmarkBurst(b *testing.B) {
	var burst detect.Burst
	now := epoch
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(100 * time.Millisecond)
		burst.ProxiedCall(now)
	}
}
