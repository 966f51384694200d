// Package journal keeps records in a file that survives the death of the process that writes it: append-only, each record with its
// length and a checksum, a torn end tolerated, and one owner at a time by a lock that ends with the process.
//
// A record that Append has taken survives the process. That it survives the machine as well takes a Sync.
package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gofrs/flock"
)

const (
	// MaxRecord bounds a record, in bytes.
	MaxRecord = 32 << 20
	// Suffix ends the name of a journal's file. The lock's has .lock after it.
	Suffix = ".journal"

	headerSize = 8 // length and checksum, four bytes each, little-endian
)

// ErrOwned means that somebody else has the journal open.
var ErrOwned = errors.New("journal: another owner has it open")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Journal is an open journal. It is not safe for concurrent use.
type Journal struct {
	path string
	file *os.File
	lock *flock.Flock
	size int64
	torn bool // there is more in the file, which is no record
}

// Create makes a journal. It fails when there is one at the path.
func Create(path string) (*Journal, error) {
	lock, err := own(path)
	if err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return &Journal{path: path, file: file, lock: lock}, nil
}

// Open opens a journal and returns its records. torn is how many bytes at the end are no record; they stay until the next one is
// written. It fails with [ErrOwned], and with [fs.ErrNotExist] when there is none at the path.
func Open(path string) (j *Journal, records [][]byte, torn int, err error) {
	lock, err := own(path)
	if err != nil {
		return nil, nil, 0, err
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0o600)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) { // its owner has just removed it, or only a lock was left of it
			_ = os.Remove(lock.Path())
		}
		return nil, nil, 0, errors.Join(err, lock.Close())
	}
	j = &Journal{path: path, file: file, lock: lock}
	j.sweep()
	text, err := io.ReadAll(file)
	if err != nil {
		return nil, nil, 0, errors.Join(err, j.Close())
	}
	records, whole := Parse(text)
	j.size, j.torn = int64(whole), whole < len(text)
	return j, records, len(text) - whole, nil
}

func own(path string) (*flock.Flock, error) {
	lock := flock.New(path+".lock", flock.SetPermissions(0o600))
	locked, err := lock.TryLock()
	switch {
	case err != nil:
		return nil, fmt.Errorf("journal: lock: %w", err)
	case !locked:
		return nil, errors.Join(ErrOwned, lock.Close())
	}
	return lock, nil
}

// sweep removes what a Replace has left that did not come to its end.
func (j *Journal) sweep() {
	left, _ := filepath.Glob(j.path + ".*.tmp") // fails for a bad pattern only
	for _, path := range left {
		_ = os.Remove(path)
	}
}

// Paths finds the journals in a folder, also those of which only a lock is left.
func Paths(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, entry := range entries {
		name := strings.TrimSuffix(entry.Name(), ".lock")
		if path := filepath.Join(dir, name); strings.HasSuffix(name, Suffix) && !slices.Contains(paths, path) {
			paths = append(paths, path)
		}
	}
	return paths, nil
}

// Parse returns the records of a file's text, up to the first that is not whole, and how many bytes they take.
func Parse(text []byte) (records [][]byte, whole int) {
	for {
		rest := text[whole:]
		if len(rest) < headerSize {
			return records, whole
		}
		length, sum := binary.LittleEndian.Uint32(rest), binary.LittleEndian.Uint32(rest[4:])
		if length == 0 || length > MaxRecord || int(length) > len(rest)-headerSize {
			return records, whole
		}
		record := rest[headerSize : headerSize+int(length)]
		if crc32.Checksum(record, castagnoli) != sum {
			return records, whole
		}
		records = append(records, record)
		whole += headerSize + int(length)
	}
}

// frame is a record as it is written.
func frame(record []byte) ([]byte, error) {
	if len(record) == 0 || len(record) > MaxRecord {
		return nil, fmt.Errorf("journal: a record of %d bytes; it must have 1 to %d", len(record), MaxRecord)
	}
	out := make([]byte, headerSize, headerSize+len(record))
	binary.LittleEndian.PutUint32(out, uint32(len(record)))
	binary.LittleEndian.PutUint32(out[4:], crc32.Checksum(record, castagnoli))
	return append(out, record...), nil
}

// Append adds a record. When it fails, the journal is as before.
func (j *Journal) Append(record []byte) error {
	text, err := frame(record)
	if err != nil {
		return err
	}
	if j.torn {
		if err = j.file.Truncate(j.size); err != nil {
			return err
		}
		j.torn = false
	}
	n, err := j.file.WriteAt(text, j.size)
	if err != nil {
		if n > 0 {
			err = errors.Join(err, j.file.Truncate(j.size))
		}
		return err
	}
	j.size += int64(n)
	return nil
}

// Sync writes to the disk what was appended.
func (j *Journal) Sync() error { return j.file.Sync() }

// Size is how many bytes the file has.
func (j *Journal) Size() int64 { return j.size }

// Replace puts the records in the place of all there are: wholly, or not at all.
func (j *Journal) Replace(records ...[]byte) error {
	var text []byte
	for _, record := range records {
		framed, err := frame(record)
		if err != nil {
			return err
		}
		text = append(text, framed...)
	}
	next, err := os.CreateTemp(filepath.Dir(j.path), filepath.Base(j.path)+".*.tmp") // with mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(next.Name()) //nolint:errcheck // it fails when the file has its new name
	_, err = next.Write(text)
	if err = errors.Join(err, next.Sync()); err == nil {
		err = os.Rename(next.Name(), j.path)
	}
	if err != nil {
		return errors.Join(err, next.Close())
	}
	old := j.file
	j.file, j.size, j.torn = next, int64(len(text)), false
	return old.Close()
}

// Close gives the journal up to whoever opens it next.
func (j *Journal) Close() error { return errors.Join(j.file.Close(), j.lock.Close()) }

// Remove ends the journal: its files are gone.
func (j *Journal) Remove() error {
	err := errors.Join(j.file.Close(), os.Remove(j.path))
	if lockErr := os.Remove(j.lock.Path()); lockErr != nil && !errors.Is(lockErr, fs.ErrNotExist) {
		err = errors.Join(err, lockErr)
	}
	return errors.Join(err, j.lock.Close())
}
