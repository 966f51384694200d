package notify_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack/internal/mockserver/notify"
)

var began = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// The value was computed with another implementation: printf '1772366400.{"a":1}' | openssl dgst -sha256 -hmac whsec_test.
func TestSign(t *testing.T) {
	t.Parallel()
	assert.Equal(t, "t=1772366400,v1=f0fe3dd99865a9267d4ee54763cb20d5ec1ce23dbc563e4217bc69f19912aae0",
		notify.Sign("whsec_test", began.Add(999*time.Millisecond), []byte(`{"a":1}`)))
	assert.NotEqual(t, notify.Sign("whsec_test", began, nil), notify.Sign("whsec_other", began, nil))
	assert.NotEqual(t, notify.Sign("whsec_test", began, nil), notify.Sign("whsec_test", began.Add(time.Second), nil))
}

func TestDelay(t *testing.T) {
	t.Parallel()
	var delays []time.Duration
	for failed := 1; ; failed++ {
		d, again := notify.Delay(failed)
		if !again {
			assert.Equal(t, notify.MaxAttempts, failed)
			break
		}
		delays = append(delays, d)
	}
	assert.Equal(t, []time.Duration{10 * time.Second, 40 * time.Second, 160 * time.Second, 640 * time.Second, 2560 * time.Second}, delays)
}

func TestCodeIsTakenOnce(t *testing.T) {
	t.Parallel()
	var c notify.Codes
	_, err := c.Check(began, "000000")
	require.ErrorIs(t, err, notify.ErrNoCode)
	assert.Empty(t, c.Pending(began))
	code, wait := c.Next(began)
	assert.Zero(t, wait)
	assert.Regexp(t, `^[0-9]{6}$`, code)
	assert.Equal(t, code, c.Pending(began))
	_, err = c.Check(began.Add(notify.CodeLifetime-1), code)
	require.NoError(t, err)
	_, err = c.Check(began, code)
	require.ErrorIs(t, err, notify.ErrNoCode, "it is used up")
}

func TestCodeExpires(t *testing.T) {
	t.Parallel()
	var c notify.Codes
	code, _ := c.Next(began)
	_, err := c.Check(began.Add(notify.CodeLifetime), code)
	require.ErrorIs(t, err, notify.ErrCodeExpired)
	assert.Empty(t, c.Pending(began.Add(notify.CodeLifetime)))
}

// After five wrong codes the right one is refused too; a new one can be had and has guesses of its own.
func TestCodeGuesses(t *testing.T) {
	t.Parallel()
	var c notify.Codes
	code, _ := c.Next(began)
	for i := range notify.MaxGuesses {
		left, err := c.Check(began, wrong(code))
		require.ErrorIs(t, err, notify.ErrWrongCode)
		assert.Equal(t, notify.MaxGuesses-1-i, left)
	}
	_, err := c.Check(began, code)
	require.ErrorIs(t, err, notify.ErrCodeSpent)
	assert.Empty(t, c.Pending(began))
	next, wait := c.Next(began.Add(notify.CodePause))
	assert.Zero(t, wait)
	left, err := c.Check(began.Add(notify.CodePause), wrong(next))
	require.ErrorIs(t, err, notify.ErrWrongCode)
	assert.Equal(t, notify.MaxGuesses-1, left)
	_, err = c.Check(began.Add(notify.CodePause), next)
	require.NoError(t, err)
}

func TestCodesAreRare(t *testing.T) {
	t.Parallel()
	var c notify.Codes
	now := began
	for i := range notify.MaxCodes {
		code, wait := c.Next(now)
		require.Zero(t, wait, i)
		refused, wait := c.Next(now.Add(notify.CodePause - time.Second))
		if i < notify.MaxCodes-1 {
			assert.Equal(t, time.Second, wait, "a minute after the last")
		}
		assert.Empty(t, refused)
		assert.Equal(t, code, c.Pending(now), "a refusal leaves the code as it is")
		now = now.Add(notify.CodePause)
	}
	_, wait := c.Next(now)
	assert.Equal(t, began.Add(time.Hour).Sub(now), wait, "five in an hour")
	_, wait = c.Next(began.Add(time.Hour))
	assert.Zero(t, wait)
}

// Codes are drawn from all million: leading zeros happen.
func TestCodesAreSpread(t *testing.T) {
	t.Parallel()
	seen, first := map[string]bool{}, map[byte]bool{}
	for range 500 {
		var c notify.Codes
		code, _ := c.Next(began)
		seen[code], first[code[0]] = true, true
	}
	assert.Greater(t, len(seen), 490)
	assert.Len(t, first, 10)
}

// wrong is another code.
func wrong(code string) string {
	var n int
	_, _ = fmt.Sscanf(code, "%d", &n)
	return fmt.Sprintf("%06d", (n+1)%1_000_000)
}

func BenchmarkSign(b *testing.B) {
	b.ReportAllocs()
	body := make([]byte, 1024)
	for b.Loop() {
		notify.Sign("whsec_test", began, body)
	}
}
