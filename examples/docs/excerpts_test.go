package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const root = "../.."

// plain is a text whose lines have no indentation, between line breaks.
func plain(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = strings.TrimSpace(line)
	}
	return "\n" + strings.Join(lines, "\n") + "\n"
}

// sources are the project's Go files, which all compile.
func sources(t *testing.T) (texts []string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "excerpts_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		texts = append(texts, plain(string(text)))
		return err
	}))
	return texts
}

// pages are what people read.
func pages(t *testing.T) (found []string) {
	t.Helper()
	for _, pattern := range []string{"/README.md", "/CONTRIBUTING.md", "/docs/*.md", "/examples/README.md"} {
		some, err := filepath.Glob(root + pattern)
		require.NoError(t, err)
		require.NotEmpty(t, some, pattern)
		found = append(found, some...)
	}
	return found
}

// blocks are the blocks of Go code in a page.
func blocks(page string) (found []string) {
	for {
		_, rest, ok := strings.Cut(page, "```go\n")
		if !ok {
			return found
		}
		var block string
		block, page, _ = strings.Cut(rest, "```")
		found = append(found, block)
	}
}

// shows reports whether a source has the parts of a block in their order: a line "…" in the block leaves something out.
func shows(source, block string) bool {
	for part := range strings.SplitSeq(plain(block), "\n…\n") {
		_, rest, ok := strings.Cut(source, "\n"+strings.Trim(part, "\n")+"\n")
		if !ok {
			return false
		}
		source = "\n" + rest
	}
	return true
}

// Each block of Go code in the pages is an excerpt of code that compiles.
func TestExcerpts(t *testing.T) {
	t.Parallel()
	all := sources(t)
	for _, page := range pages(t) {
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		for _, block := range blocks(string(text)) {
			found := false
			for _, source := range all {
				found = found || shows(source, block)
			}
			assert.True(t, found, "%s shows code that is nowhere in the project:\n%s", filepath.Base(page), block)
		}
	}
}

func TestShows(t *testing.T) {
	t.Parallel()
	source := plain("a()\n\tb()\n\tc()\n")
	assert.True(t, shows(source, "b()\nc()\n"))
	assert.True(t, shows(source, "a()\n…\nc()\n"))
	assert.False(t, shows(source, "a()\nc()\n"), "a line is missing")
	assert.False(t, shows(source, "c()\n…\na()\n"), "the order is another")
	assert.False(t, shows(source, "b(\n"), "it is half a line")
}

var link = regexp.MustCompile(`\]\(([\w./:#?=&%-]+)\)`)

// Each link of the pages to a file of the project leads somewhere.
func TestLinks(t *testing.T) {
	t.Parallel()
	for _, page := range pages(t) {
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		for _, link := range link.FindAllStringSubmatch(string(text), -1) {
			target, _, _ := strings.Cut(link[1], "#")
			if target == "" || strings.Contains(target, "://") {
				continue
			}
			assert.FileExists(t, filepath.Join(filepath.Dir(page), target), "%s links to it", filepath.Base(page))
		}
	}
}
