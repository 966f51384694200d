package mockserver

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

type countIn struct {
	Body struct {
		Step int    `json:"step"`
		Name string `json:"name,omitempty"`
	} `body:""`
}

type countOut struct {
	Total int `json:"total"`
}

// counter is a route that adds up what it is sent; what is negative it refuses, and at 13 it breaks.
func counter(total *int, opts ...routeOption) route {
	return endpoint("POST", "/v1/test/count", func(_ *Server, _ context.Context, _ *caller, in countIn) (*countOut, error) {
		switch {
		case in.Body.Step < 0:
			return nil, invalid("body.step", in.Body.Step, "at least 0")
		case in.Body.Step == 13:
			panic("an unlucky number")
		}
		*total += in.Body.Step
		return &countOut{*total}, nil
	}, opts...)
}

// call sends a body to a route with an idempotency key, unless that is empty, and returns its answer or the code of its refusal.
func call(t *testing.T, s *Server, r route, key, body string, change ...func(*http.Request)) string {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), r.method, r.pattern, strings.NewReader(body))
	req.Header.Set("Authorization", "Bearer "+s.first.APIKey)
	if key != "" {
		req.Header.Set(idempotencyHeader, key)
	}
	for _, c := range change {
		c(req)
	}
	out, err := s.dispatch(req, &r, "req_1", []byte(body))
	if err != nil {
		refusal, ok := err.(*apiError) //nolint:errorlint // it is not wrapped
		if !ok {
			return "INTERNAL"
		}
		return refusal.code
	}
	return strings.TrimSpace(string(out.body))
}

func TestIdempotency(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]routeOption{
		"a locked route":    {idempotent(true)},
		"an unlocked route": {idempotent(true), unlocked},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, total := New(Options{}), 0
			r := counter(&total, opts...)

			assert.Equal(t, `{"total":2}`, call(t, s, r, "a", `{"step":2,"name":"x"}`))
			assert.Equal(t, `{"total":2}`, call(t, s, r, "a", `{"step":2,"name":"x"}`), "the same answer")
			assert.Equal(t, `{"total":2}`, call(t, s, r, "a", ` {"name":"x", "step":2} `), "written in another way")
			assert.Equal(t, "IDEMPOTENCY_KEY_REUSED", call(t, s, r, "a", `{"step":3,"name":"x"}`))
			ifMatch := func(req *http.Request) { req.Header.Set("If-Match", "2") }
			assert.Equal(t, "IDEMPOTENCY_KEY_REUSED", call(t, s, r, "a", `{"step":2,"name":"x"}`, ifMatch), "on another condition")
			elsewhere := func(req *http.Request) { req.URL.Path = "/v1/test/other" }
			assert.Equal(t, "IDEMPOTENCY_KEY_REUSED", call(t, s, r, "a", `{"step":2,"name":"x"}`, elsewhere), "of another object")
			assert.Equal(t, 2, total)

			assert.Equal(t, `{"total":4}`, call(t, s, r, "b", `{"step":2,"name":"x"}`), "a new key is a new call")
			assert.Equal(t, "INVALID_REQUEST", call(t, s, r, "c", `{"step":-1}`))
			assert.Equal(t, "INTERNAL", call(t, s, r, "c", `{"step":13}`), "a refused call leaves its key free")
			assert.Equal(t, `{"total":5}`, call(t, s, r, "c", `{"step":1}`), "and so does one that broke")

			other := counter(&total, opts...)
			other.pattern = "/v1/test/another"
			assert.Equal(t, `{"total":6}`, call(t, s, other, "a", `{"step":1}`), "a key belongs to its route")
		})
	}
}

func TestIdempotencyKeys(t *testing.T) {
	t.Parallel()
	s, total := New(Options{}), 0
	required, optional, without := counter(&total, idempotent(true)), counter(&total, idempotent(false)), counter(&total)
	for name, key := range map[string]string{"missing": "", "blank": "  ", "too long": strings.Repeat("k", 256),
		"not ASCII": "schlüssel", "with a line break": "a\nb"} {
		assert.Equal(t, "INVALID_REQUEST", call(t, s, required, key, `{"step":1}`), name)
		if key != "" {
			assert.Equal(t, "INVALID_REQUEST", call(t, s, optional, key, `{"step":1}`), name)
		}
	}
	twice := func(req *http.Request) { req.Header.Add(idempotencyHeader, "b") }
	assert.Equal(t, "INVALID_REQUEST", call(t, s, required, "a", `{"step":1}`, twice))
	assert.Zero(t, total)
	assert.Equal(t, `{"total":1}`, call(t, s, optional, "", `{"step":1}`))
	assert.Equal(t, `{"total":2}`, call(t, s, optional, "", `{"step":1}`), "without a key every call counts")
	assert.Equal(t, `{"total":3}`, call(t, s, optional, "k", `{"step":1}`))
	assert.Equal(t, `{"total":3}`, call(t, s, optional, "k", `{"step":1}`))
	assert.Equal(t, `{"total":4}`, call(t, s, without, "k", `{"step":1}`), "a route that knows no keys ignores them")
}

func TestIdempotencyOfOperators(t *testing.T) {
	t.Parallel()
	s, total := New(Options{}), 0
	r := counter(&total, idempotent(true))
	assert.Equal(t, `{"total":1}`, call(t, s, r, "a", `{"step":1}`))
	const key = "sk_live_second"
	s.keys.add(key, keyOwner{op: newOperator(s, newID("op_"))})
	as := func(req *http.Request) { req.Header.Set("Authorization", "Bearer "+key) }
	assert.Equal(t, `{"total":2}`, call(t, s, r, "a", `{"step":1}`, as), "another operator's key is another key")
}

func TestIdempotencyInProgress(t *testing.T) {
	t.Parallel()
	s := New(Options{})
	running, finish, done := make(chan struct{}), make(chan struct{}), make(chan string)
	r := endpoint("POST", "/v1/test/slow", func(*Server, context.Context, *caller, countIn) (*countOut, error) {
		close(running)
		<-finish
		return &countOut{1}, nil
	}, unlocked, idempotent(true))
	go func() { done <- call(t, s, r, "a", `{"step":1}`) }()
	<-running
	assert.Equal(t, "IDEMPOTENCY_KEY_IN_PROGRESS", call(t, s, r, "a", `{"step":1}`), "the operator is not locked meanwhile")
	close(finish)
	assert.Equal(t, `{"total":1}`, <-done)
	assert.Equal(t, `{"total":1}`, call(t, s, r, "a", `{"step":1}`))
}

func TestIdempotencyEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, total := New(Options{}), 0
		r := counter(&total, idempotent(true))
		op, _ := s.operatorByID(s.first.OperatorID)
		require.Equal(t, `{"total":1}`, call(t, s, r, "a", `{"step":1}`))
		time.Sleep(keyedLife - time.Second)
		require.Equal(t, `{"total":1}`, call(t, s, r, "a", `{"step":1}`))
		time.Sleep(time.Second)
		require.Equal(t, `{"total":2}`, call(t, s, r, "a", `{"step":1}`), "after 24 hours the key is free")
		require.Len(t, op.keyed, 1)

		time.Sleep(time.Hour)
		for i := range maxKeyed - 1 {
			op.keyed[string(rune(i))+"\nfilled"] = &keyedCall{until: s.clock.now().Add(keyedLife)}
		}
		require.Equal(t, "IDEMPOTENCY_KEYS_EXHAUSTED", call(t, s, r, "b", `{"step":1}`))
		require.Equal(t, `{"total":2}`, call(t, s, r, "a", `{"step":1}`), "those that are kept still work")
		refusal := op.tooManyKeys(s.clock.now()).(*apiError) //nolint:errorlint // it is not wrapped
		require.Equal(t, 23*time.Hour, refusal.retryAfter, "until the first of them ends")
	})
}

// Answers are bounded by their bytes too, and what is taken away leaves its key taken.
func TestIdempotencyAnswers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, total := New(Options{}), 0
		r := counter(&total, idempotent(true))
		op, _ := s.operatorByID(s.first.OperatorID)
		require.Equal(t, `{"total":1}`, call(t, s, r, "a", `{"step":1}`))
		size := len(`{"total":1}`)
		require.InDelta(t, size, op.keyedBytes, 1)
		op.wipeAnswers(refuse(http.StatusGone, "AUTHORITY_ERASED", "gone", nil), `"total":2`)
		require.Equal(t, `{"total":1}`, call(t, s, r, "a", `{"step":1}`), "another answer")
		op.wipeAnswers(refuse(http.StatusGone, "AUTHORITY_ERASED", "gone", nil), `"id":"x"`, `"total":1`)
		for _, body := range []string{`{"step":1}`, `{"step":2}`} {
			require.Equal(t, "AUTHORITY_ERASED", call(t, s, r, "a", body), "whatever it asks for")
		}
		require.Zero(t, op.keyedBytes)

		require.Equal(t, `{"total":2}`, call(t, s, r, "b", `{"step":1}`))
		op.keyedBytes += maxKeyedBytes
		require.Equal(t, "IDEMPOTENCY_KEYS_EXHAUSTED", call(t, s, r, "c", `{"step":1}`))
		op.keyedBytes -= maxKeyedBytes
		time.Sleep(keyedLife)
		require.Equal(t, `{"total":3}`, call(t, s, r, "a", `{"step":1}`))
		require.InDelta(t, size, op.keyedBytes, 1, "that of the first two is free")
		require.Len(t, op.keyed, 1)
	})
}
