package mockserver

import (
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// sources parses the files of a package, without its tests.
func sources(t *testing.T, dir string) (files []*ast.File) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	require.NoError(t, err)
	for _, name := range names {
		if !strings.HasSuffix(name, "_test.go") {
			file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
			require.NoError(t, err)
			files = append(files, file)
		}
	}
	require.NotEmpty(t, files)
	return files
}

// The enums of the description are those of package stack: all of their constants, in their order.
func TestEnumsAreThoseOfTheSDK(t *testing.T) {
	t.Parallel()
	declared := map[string][]any{}
	for _, file := range sources(t, "../..") {
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok {
				return true
			}
			typ, ok := spec.Type.(*ast.Ident)
			if !ok || !typ.IsExported() || len(spec.Values) != 1 {
				return true
			}
			if lit, ok := spec.Values[0].(*ast.BasicLit); ok && lit.Kind == token.STRING && spec.Names[0].IsExported() {
				text, err := strconv.Unquote(lit.Value)
				require.NoError(t, err)
				declared[typ.Name] = append(declared[typ.Name], text)
			}
			return true
		})
	}
	listed := map[string][]any{}
	for typ, all := range enums {
		listed[typ.Name()] = all
	}
	delete(declared, "NotificationEvent") // which may also be the beginning of some
	assert.Equal(t, declared, listed)
}

// The codes of the description are those that the handlers refuse with.
func TestErrorCodesAreThoseOfTheHandlers(t *testing.T) {
	t.Parallel()
	statusOf := map[string]int{}
	for status := 400; status < 600; status++ {
		if text := http.StatusText(status); text != "" {
			statusOf["Status"+strings.ReplaceAll(text, " ", "")] = status
		}
	}
	// what passes a status on to refuse, or takes the code from elsewhere
	wrappers := map[string]int{"unauthorized": 401, "violation": 400, "refused": 409}
	code := regexp.MustCompile(`^[A-Z][A-Z0-9]*(_[A-Z0-9]+)*$`)
	listed := map[string]bool{}
	for status, all := range errorCodes {
		for _, c := range all {
			listed[strconv.Itoa(status)+" "+c] = true
		}
	}
	mentioned := map[string]bool{}
	for _, file := range append(sources(t, "."), sources(t, "forward")...) {
		inTable := false
		ast.Inspect(file, func(n ast.Node) bool {
			if spec, ok := n.(*ast.ValueSpec); ok && spec.Names[0].Name == "errorCodes" {
				inTable = true
			}
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING && !inTable {
				if text, err := strconv.Unquote(lit.Value); err == nil && code.MatchString(text) {
					mentioned[text] = true
				}
			}
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			f, ok := call.Fun.(*ast.Ident)
			if !ok {
				return true
			}
			status, args := wrappers[f.Name], call.Args
			if f.Name == "refuse" {
				if sel, ok := args[0].(*ast.SelectorExpr); ok {
					status = statusOf[sel.Sel.Name]
				}
				args = args[1:]
			}
			if status == 0 || len(args) == 0 {
				return true
			}
			if lit, ok := args[0].(*ast.BasicLit); ok {
				text, err := strconv.Unquote(lit.Value)
				require.NoError(t, err)
				if text != "ROUTE_NOT_FOUND" && text != "METHOD_NOT_ALLOWED" && code.MatchString(text) { // codes of OAuth are small
					assert.True(t, listed[strconv.Itoa(status)+" "+text], "%d %s is not in errorCodes", status, text)
				}
			}
			return true
		})
	}
	for _, all := range errorCodes {
		for _, c := range all {
			assert.True(t, mentioned[c], "%s is said nowhere", c)
		}
	}
}

// No route goes without a name of its own, which is the id of its operation.
func TestRoutesHaveNames(t *testing.T) {
	t.Parallel()
	name := regexp.MustCompile(`^[a-z][A-Za-z]+$`)
	for _, r := range routes() {
		assert.Regexp(t, name, r.name, r.pattern)
		assert.NotEqual(t, reflect.TypeFor[document](), r.out, "%s makes its bytes itself: say which with answers", r.pattern)
	}
}
