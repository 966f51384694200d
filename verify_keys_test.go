package stack_test

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

// keyServer serves a key set, over no network.
type keyServer struct {
	mu      sync.Mutex
	body    string
	status  int
	header  http.Header
	err     error
	delay   time.Duration
	fetches int
}

func (s *keyServer) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	s.fetches++
	body, status, header, err, delay := s.body, s.status, s.header, s.err, s.delay
	s.mu.Unlock()
	select {
	case <-time.After(delay):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

func (s *keyServer) serve(change func(*keyServer)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.body, s.status, s.header, s.err, s.delay = "", http.StatusOK, http.Header{}, nil, 0
	change(s)
}

func (s *keyServer) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fetches
}

// keyTest is a verifier, in a bubble of its own, of passports that two keys have signed.
type keyTest struct {
	*testing.T
	server   *keyServer
	verifier *stack.PassportVerifier
	old, new forger
}

func inKeyTest(t *testing.T, test func(*keyTest)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		k := &keyTest{T: t, server: &keyServer{}, old: newForger("old"), new: newForger("new")}
		k.server.serve(func(s *keyServer) { s.body = k.old.jwks() })
		var err error
		k.verifier, err = stack.NewPassportVerifier(stack.PassportVerifierConfig{JWKSURL: "https://keys.example/jwks.json",
			HTTPClient: &http.Client{Transport: k.server}})
		require.NoError(t, err)
		test(k)
	})
}

// check verifies a fresh passport and waits until nothing is under way.
func (k *keyTest) check(f forger, want stack.VerificationReason) error {
	k.Helper()
	token := f.good()
	_, err := k.verifier.Verify(k.Context(), stack.NewSecret(token))
	synctest.Wait()
	if want == "" {
		require.NoError(k, err)
		return nil
	}
	requireRefusal(k.T, err, want, token)
	return err
}

func TestKeysAreFetchedOnce(t *testing.T) {
	t.Parallel()
	inKeyTest(t, func(k *keyTest) {
		k.server.serve(func(s *keyServer) { s.body, s.delay = k.old.jwks(), time.Second })
		token := stack.NewSecret(k.old.good())
		var passed atomic.Int32
		for range 50 {
			go func() {
				if _, err := k.verifier.Verify(k.Context(), token); err == nil {
					passed.Add(1)
				}
			}()
		}
		time.Sleep(time.Second)
		synctest.Wait()
		assert.EqualValues(k, 50, passed.Load())
		for range 10 {
			_ = k.check(k.old, "")
		}
		assert.Equal(k, 1, k.server.count())
	})
}

// A set that is five minutes old is fetched anew while it goes on serving, for known passports as well.
func TestKeysAreFetchedAnew(t *testing.T) {
	t.Parallel()
	inKeyTest(t, func(k *keyTest) {
		known := stack.NewSecret(k.old.good())
		_, err := k.verifier.Verify(k.Context(), known)
		require.NoError(k, err)
		k.server.serve(func(s *keyServer) { s.body, s.delay = k.new.jwks(), time.Second })
		time.Sleep(5*time.Minute - time.Nanosecond)
		_ = k.check(k.old, "")
		assert.Equal(k, 1, k.server.count())
		time.Sleep(time.Nanosecond)
		_, err = k.verifier.Verify(k.Context(), known)
		require.NoError(k, err)
		_ = k.check(k.old, "")
		assert.Equal(k, 2, k.server.count(), "in the background, and once")
		time.Sleep(time.Second)
		_ = k.check(k.new, "")
		_ = k.check(k.old, stack.RefusedUnknownKey)
		_, err = k.verifier.Verify(k.Context(), known)
		requireRefusal(k.T, err, stack.RefusedUnknownKey, known.Reveal())
		assert.Equal(k, 2, k.server.count())
	})
}

// A key that is unknown is fetched at once, but nobody makes the verifier fetch more often than every 5 s.
func TestUnknownKeys(t *testing.T) {
	t.Parallel()
	inKeyTest(t, func(k *keyTest) {
		_ = k.check(k.old, "")
		k.server.serve(func(s *keyServer) { s.body = k.new.jwks() })
		for range 100 {
			_ = k.check(k.new, stack.RefusedUnknownKey)
		}
		assert.Equal(k, 1, k.server.count(), "the set is not 5 s old")
		time.Sleep(5 * time.Second)
		_ = k.check(k.new, "")
		assert.Equal(k, 2, k.server.count())
		for range 100 {
			_ = k.check(newForger("other"), stack.RefusedUnknownKey)
			time.Sleep(time.Second)
		}
		assert.Equal(k, 2+100/5-1, k.server.count())
		_ = k.check(forger{"new", k.old.key}, stack.RefusedSignature)
	})
}

// A passport that is known is verified anew when its kid stands for another key.
func TestKeyReplacedUnderItsID(t *testing.T) {
	t.Parallel()
	inKeyTest(t, func(k *keyTest) {
		token := stack.NewSecret(k.old.good())
		_, err := k.verifier.Verify(k.Context(), token)
		require.NoError(k, err)
		k.server.serve(func(s *keyServer) { s.body = forger{"old", k.new.key}.jwks() })
		time.Sleep(5 * time.Minute)
		_ = k.check(k.old, "") // and fetches anew
		_, err = k.verifier.Verify(k.Context(), token)
		requireRefusal(k.T, err, stack.RefusedSignature, token.Reveal())
	})
}

// While keys cannot be fetched, old ones serve for a day; an empty set is an answer, and then nothing passes.
func TestKeysOutOfReach(t *testing.T) {
	t.Parallel()
	for name, broken := range map[string]func(*keyServer){
		"the network":      func(s *keyServer) { s.err = errors.New("no route") },
		"a server's error": func(s *keyServer) { s.status, s.body = http.StatusInternalServerError, newForger("old").jwks() },
		"not found":        func(s *keyServer) { s.status, s.body = http.StatusNotFound, newForger("old").jwks() },
		"a redirect": func(s *keyServer) {
			s.status, s.header = http.StatusFound, http.Header{"Location": {"https://evil.example/"}}
		},
		"no JSON":           func(s *keyServer) { s.body = "<html>" },
		"too large":         func(s *keyServer) { s.body = newForger("old").jwks() + strings.Repeat(" ", 256<<10) },
		"a weak key":        func(s *keyServer) { s.body = weakSet(strings.Repeat("00", 32)) },
		"a name twice":      func(s *keyServer) { s.body = `{"keys":[],"keys":[]}` },
		"an operator's set": func(s *keyServer) { s.body = newForger(stack.AgentKeyID("agt_1")).jwks() },
		"no answer in time": func(s *keyServer) { s.body, s.delay = newForger("old").jwks(), time.Hour },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inKeyTest(t, func(k *keyTest) {
				k.server.serve(broken)
				err := k.check(k.old, stack.RefusedUnavailable)
				assert.NotContains(k, err.Error(), "keys.example", "no URL")
				tries := k.server.count()
				_ = k.check(k.old, stack.RefusedUnavailable)
				if name == "no answer in time" { // which takes longer than the pause
					tries++
				}
				assert.Equal(k, tries, k.server.count(), "not again within 5 s")
				k.server.serve(func(s *keyServer) { s.body = k.old.jwks() })
				time.Sleep(5 * time.Second)
				_ = k.check(k.old, "")
				good := time.Now()

				k.server.serve(broken)
				time.Sleep(5 * time.Minute)
				for time.Since(good) < 24*time.Hour-time.Minute {
					_ = k.check(k.old, "")
					time.Sleep(20 * time.Minute)
				}
				time.Sleep(time.Until(good.Add(24 * time.Hour)))
				_ = k.check(k.old, stack.RefusedUnavailable)
				_ = k.check(k.new, stack.RefusedUnavailable)
			})
		})
	}
	inKeyTest(t, func(k *keyTest) {
		_ = k.check(k.old, "")
		k.server.serve(func(s *keyServer) { s.body = `{"keys":[]}` })
		time.Sleep(5 * time.Minute)
		_ = k.check(k.old, "")
		_ = k.check(k.old, stack.RefusedUnknownKey)
	})
}

// Who waits for keys waits no longer than the own context, and does not end the wait of others.
func TestWaitForKeys(t *testing.T) {
	t.Parallel()
	inKeyTest(t, func(k *keyTest) {
		k.server.serve(func(s *keyServer) { s.body, s.delay = k.old.jwks(), 3*time.Second })
		token := stack.NewSecret(k.old.good())
		ctx, cancel := context.WithTimeout(k.Context(), time.Second)
		defer cancel()
		began := time.Now()
		_, err := k.verifier.Verify(ctx, token)
		requireRefusal(k.T, err, stack.RefusedUnavailable, token.Reveal())
		require.ErrorIs(k, err, context.DeadlineExceeded)
		assert.Equal(k, time.Second, time.Since(began))
		_, err = k.verifier.Verify(k.Context(), token)
		require.NoError(k, err)
		assert.Equal(k, 3*time.Second, time.Since(began))
		assert.Equal(k, 1, k.server.count())
	})
}

func weakSet(x string) string {
	key, err := hex.DecodeString(x)
	if err != nil {
		panic(err)
	}
	return `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":"` + base64.RawURLEncoding.EncodeToString(key) + `"}]}`
}

// The points of a low order, for which everybody can sign, points that are written in a second way, and what is no point.
func TestWeakKeys(t *testing.T) {
	t.Parallel()
	for _, x := range []string{
		"0100000000000000000000000000000000000000000000000000000000000000", // order 1
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // order 2
		"0000000000000000000000000000000000000000000000000000000000000000", // order 4
		"0000000000000000000000000000000000000000000000000000000000000080", // order 4
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05", // order 8
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85", // order 8
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a", // order 8
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa", // order 8
		"0100000000000000000000000000000000000000000000000000000000000080", // not canonical: the sign of x = 0
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // not canonical: y = p + 1
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // y = p
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
		"f0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // not canonical, and of a high order: y = p + 3
		"0200000000000000000000000000000000000000000000000000000000000000", // no point
	} {
		_, err := stack.ParseJWKS([]byte(weakSet(x)))
		proof := requireProof(t, err, stack.ProofKey)
		assert.ErrorContains(t, proof.Err, "is weak", x)
	}
	_, err := stack.ParseJWKS([]byte(weakSet("0300000000000000000000000000000000000000000000000000000000000000"))) // y = 3, as it is written
	require.NoError(t, err)
}
