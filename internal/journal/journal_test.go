package journal_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack/internal/journal"
)

// written makes a journal of some records and closes it.
func written(t *testing.T, records ...string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "a"+journal.Suffix)
	j, err := journal.Create(path)
	require.NoError(t, err)
	for _, record := range records {
		require.NoError(t, j.Append([]byte(record)))
	}
	require.NoError(t, j.Sync())
	require.NoError(t, j.Close())
	return path
}

func texts(records [][]byte) []string {
	out := []string{}
	for _, record := range records {
		out = append(out, string(record))
	}
	return out
}

func TestJournal(t *testing.T) {
	t.Parallel()
	path := written(t, "one", "two")
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, fs.FileMode(0o600), info.Mode().Perm())
	j, records, torn, err := journal.Open(path)
	require.NoError(t, err)
	assert.Equal(t, []string{"one", "two"}, texts(records))
	assert.Zero(t, torn)
	assert.Equal(t, info.Size(), j.Size())

	require.NoError(t, j.Append([]byte("three")))
	require.NoError(t, j.Replace([]byte("all")))
	require.NoError(t, j.Append([]byte("four")))
	_, _, _, err = journal.Open(path)
	require.ErrorIs(t, err, journal.ErrOwned)
	require.NoError(t, j.Close())

	j, records, _, err = journal.Open(path)
	require.NoError(t, err)
	assert.Equal(t, []string{"all", "four"}, texts(records))
	require.NoError(t, j.Remove())
	left, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	assert.Empty(t, left)
	_, _, _, err = journal.Open(path)
	require.ErrorIs(t, err, fs.ErrNotExist)
	left, err = os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	assert.Empty(t, left, "a look at what is not there leaves nothing")
}

// A file that was cut at any byte gives the records before it, and can be gone on with.
func TestTornEnd(t *testing.T) {
	t.Parallel()
	path := written(t, "first", "second", "third")
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	ends := []int{0, 13, 27, 40} // of whole records, eight bytes before each
	require.Len(t, whole, 40)
	for cut := range len(whole) + 1 {
		cutPath := filepath.Join(t.TempDir(), "a"+journal.Suffix)
		require.NoError(t, os.WriteFile(cutPath, whole[:cut], 0o600))
		j, records, torn, openErr := journal.Open(cutPath)
		require.NoError(t, openErr)
		want := 0
		for _, end := range ends[1:] {
			if cut >= end {
				want++
			}
		}
		require.Len(t, records, want, "cut at %d", cut)
		assert.Equal(t, cut-ends[want], torn, "cut at %d", cut)
		require.NoError(t, j.Append([]byte("next")))
		require.NoError(t, j.Close())
		j, records, torn, openErr = journal.Open(cutPath)
		require.NoError(t, openErr)
		assert.Zero(t, torn)
		assert.Equal(t, "next", string(records[want]))
		require.NoError(t, j.Close())
	}
}

// A flipped bit ends the journal where it is: what comes after cannot be trusted.
func TestFlippedBit(t *testing.T) {
	t.Parallel()
	whole, err := os.ReadFile(written(t, "first", "second", "third"))
	require.NoError(t, err)
	for i := range whole {
		broken := bytes.Clone(whole)
		broken[i] ^= 0x10
		records, _ := journal.Parse(broken)
		for n, record := range records {
			assert.Equal(t, []string{"first", "second", "third"}[n], string(record))
		}
		assert.Less(t, len(records), 3, "byte %d", i)
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	path := written(t, "x")
	_, err := journal.Create(path)
	require.ErrorIs(t, err, fs.ErrExist)
	j, _, _, err := journal.Open(path)
	require.NoError(t, err)
	require.ErrorContains(t, j.Append(nil), "1 to")
	require.ErrorContains(t, j.Append(make([]byte, journal.MaxRecord+1)), "1 to")
	require.Error(t, j.Replace([]byte("good"), nil))
	require.NoError(t, j.Close())
	j, records, _, err := journal.Open(path)
	require.NoError(t, err)
	assert.Equal(t, []string{"x"}, texts(records), "what is refused changes nothing")
	require.NoError(t, j.Close())
	_, err = journal.Create(filepath.Join(t.TempDir(), "no", "such", "folder"))
	require.Error(t, err)
}

// What a death in the middle of Replace or Remove leaves goes with the next look.
func TestLeftovers(t *testing.T) {
	t.Parallel()
	path := written(t, "x")
	dir := filepath.Dir(path)
	require.NoError(t, os.WriteFile(path+".123.tmp", []byte("half"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "gone.journal.lock"), nil, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "notes.txt"), nil, 0o600))
	paths, err := journal.Paths(dir)
	require.NoError(t, err)
	assert.Equal(t, []string{path, filepath.Join(dir, "gone.journal")}, paths)
	_, _, _, err = journal.Open(paths[1])
	require.ErrorIs(t, err, fs.ErrNotExist)
	j, records, _, err := journal.Open(path)
	require.NoError(t, err)
	assert.Equal(t, []string{"x"}, texts(records))
	require.NoError(t, j.Remove())
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 1)
	assert.Equal(t, "notes.txt", left[0].Name())
}

func FuzzParse(f *testing.F) {
	whole, err := os.ReadFile("testdata/three" + journal.Suffix)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:20])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, text []byte) {
		records, n := journal.Parse(text)
		if n > len(text) {
			t.Fatalf("%d of %d bytes", n, len(text))
		}
		again, m := journal.Parse(text[:n])
		if m != n || len(again) != len(records) {
			t.Fatalf("%d records in %d bytes, and then %d in %d", len(records), n, len(again), m)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{100, 1000} {
		b.Run(fmt.Sprintf("%d bytes", size), func(b *testing.B) {
			j, err := journal.Create(filepath.Join(b.TempDir(), "a"+journal.Suffix))
			require.NoError(b, err)
			defer j.Remove() //nolint:errcheck // the folder goes as well
			record := make([]byte, size)
			b.ReportAllocs()
			for b.Loop() {
				if err := j.Append(record); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
