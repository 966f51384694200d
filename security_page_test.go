package stack_test

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Each test that SECURITY.md names is there.
func TestSecurityPageNamesTests(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("SECURITY.md")
	require.NoError(t, err)
	there := map[string]bool{}
	require.NoError(t, filepath.WalkDir(".", func(file string, _ fs.DirEntry, walkErr error) error {
		if strings.HasSuffix(file, "_test.go") {
			there[path.Base(filepath.ToSlash(file))] = true
		}
		return walkErr
	}))
	named := regexp.MustCompile(`[a-z0-9_]+_test\.go`).FindAllString(string(page), -1)
	assert.Greater(t, len(named), 20)
	for _, name := range named {
		assert.True(t, there[name], name)
	}
}
