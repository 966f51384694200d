package stack

import (
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Who comes second takes the key of who has finished meanwhile, and enrols none.
func TestAgentKeyOfAnotherProcess(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	path, err := keyPath("agt_1")
	require.NoError(t, err)
	require.NoError(t, makeKeyFile("agt_1", path))
	first, err := readKeyFile(path)
	require.NoError(t, err)
	a := newAgentAuth("agt_1", nil, nil, nil) // it could not enrol
	second, err := a.makeKey(t.Context(), path)
	require.NoError(t, err)
	assert.Equal(t, first.PublicKey, second.PublicKey)
	pending, err := keyPath("agt_1.pending")
	require.NoError(t, err)
	_, err = os.Stat(pending)
	require.ErrorIs(t, err, os.ErrNotExist)
}

func BenchmarkAgentBearer(b *testing.B) {
	b.Setenv("HOME", b.TempDir())
	path, err := keyPath("agt_1")
	require.NoError(b, err)
	require.NoError(b, makeKeyFile("agt_1", path))
	a := newAgentAuth("agt_1", nil, nil, nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.bearer(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
