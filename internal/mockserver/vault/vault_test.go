package vault

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const canary = "xoxb-canary-5f1e"

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	v := NewRandom()
	for name, secret := range map[string][]byte{
		"text": []byte(canary), "nothing": nil, "large": bytes.Repeat([]byte("k"), 1<<20),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			before := slices.Clone(secret)
			sealed, err := v.Seal(secret, "op_1/scon_1")
			require.NoError(t, err)
			assert.Equal(t, before, secret, "the caller's bytes are the caller's")
			opened, err := v.Open(sealed, "op_1/scon_1")
			require.NoError(t, err)
			assert.True(t, bytes.Equal(secret, opened))
		})
	}
}

func TestSealNeedsContext(t *testing.T) {
	t.Parallel()
	_, err := NewRandom().Seal([]byte(canary), "")
	require.ErrorContains(t, err, "context must not be empty")
	assert.NotContains(t, err.Error(), canary)
}

func TestSealIsFreshEachTime(t *testing.T) {
	t.Parallel()
	v := NewRandom()
	a, err := v.Seal([]byte(canary), "c")
	require.NoError(t, err)
	b, err := v.Seal([]byte(canary), "c")
	require.NoError(t, err)
	assert.NotEqual(t, a.ciphertext, b.ciphertext)
	assert.NotEqual(t, a.wrappedKey, b.wrappedKey)
	keyA, err := decrypt(v.root(), a.wrappedKey, "c")
	require.NoError(t, err)
	keyB, err := decrypt(v.root(), b.wrappedKey, "c")
	require.NoError(t, err)
	assert.NotEqual(t, keyA, keyB, "a data key of its own")
	assert.Len(t, keyA, keySize)
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	v := NewRandom()
	const context = "op_1/scon_1"
	sealed, err := v.Seal([]byte(canary), context)
	require.NoError(t, err)
	other, err := v.Seal([]byte("another secret of this context"), context)
	require.NoError(t, err)
	moved, err := v.Seal([]byte(canary), "op_2/scon_1")
	require.NoError(t, err)
	shortKey, err := encrypt(v.root(), []byte("short"), context)
	require.NoError(t, err)

	tests := []struct {
		name    string
		vault   *Vault
		sealed  Sealed
		context string
	}{
		{"another context", v, sealed, "op_2/scon_1"},
		{"no context", v, sealed, ""},
		{"another vault", NewRandom(), sealed, context},
		{"another secret's key", v, Sealed{other.wrappedKey, sealed.ciphertext}, context},
		{"a key from another context", v, Sealed{moved.wrappedKey, sealed.ciphertext}, context},
		{"a ciphertext from another context", v, Sealed{sealed.wrappedKey, moved.ciphertext}, context},
		{"the zero value", v, Sealed{}, context},
		{"a key that is too short", v, Sealed{shortKey, sealed.ciphertext}, context},
		{"a ciphertext cut short", v, Sealed{sealed.wrappedKey, sealed.ciphertext[:20]}, context},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := test.vault.Open(test.sealed, test.context)
			require.ErrorIs(t, err, ErrOpen)
			assert.Nil(t, got)
			assert.NotContains(t, err.Error(), canary)
		})
	}
}

// TestOpenRefusesEveryFlippedByte alters each byte of both halves in turn, nonces and tags among them.
func TestOpenRefusesEveryFlippedByte(t *testing.T) {
	t.Parallel()
	v := NewRandom()
	sealed, err := v.Seal([]byte(canary), "c")
	require.NoError(t, err)
	for _, part := range [][]byte{sealed.wrappedKey, sealed.ciphertext} {
		for i := range part {
			part[i] ^= 1
			_, err = v.Open(sealed, "c")
			require.ErrorIs(t, err, ErrOpen, "byte %d", i)
			part[i] ^= 1
		}
	}
	_, err = v.Open(sealed, "c")
	require.NoError(t, err)
}

func TestPrintingShowsNoSecret(t *testing.T) {
	t.Parallel()
	v := NewRandom()
	sealed, err := v.Seal([]byte(canary), "c")
	require.NoError(t, err)
	holder := struct {
		v *Vault
		w Vault
		s Sealed
	}{v, *v, sealed}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		for _, value := range []any{v, *v, sealed, holder} {
			printed := fmt.Sprintf(verb, value)
			assert.NotContains(t, printed, canary)
			for _, form := range []string{"%v", "%s", "%x", "%d", "%#v"} { // the root key in any of its printed forms
				assert.NotContains(t, printed, fmt.Sprintf(form, *v.root()))
				assert.NotContains(t, printed, fmt.Sprintf(form, v.root()[:]))
			}
		}
	}
}

func BenchmarkSealOpen(b *testing.B) {
	v := NewRandom()
	secret := []byte(canary)
	b.ReportAllocs()
	for b.Loop() {
		sealed, err := v.Seal(secret, "op_1/scon_1")
		if err != nil {
			b.Fatal(err)
		}
		if _, err := v.Open(sealed, "op_1/scon_1"); err != nil {
			b.Fatal(err)
		}
	}
}
