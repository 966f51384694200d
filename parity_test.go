package stack_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack/stacktest"
)

// sentByOAuth2 are the endpoints that x/oauth2 sends to for the client, as the tests of OAuth do it.
var sentByOAuth2 = []string{"GET /oauth/authorize", "POST /oauth/token", "POST /v1/oauth/token"}

var placeholder = regexp.MustCompile(`\{[^}]*\}`)

// endpointsOfTheContract are the methods and paths that the Python SDK knows. (contract: endpoints)
func endpointsOfTheContract(t *testing.T) (rows []string) {
	t.Helper()
	text, err := os.ReadFile("testdata/endpoints.tsv")
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		columns := strings.Split(line, "\t")
		require.Len(t, columns, 5, line)
		if columns[0] != "method" {
			rows = append(rows, columns[0]+" "+columns[1])
		}
	}
	return rows
}

// sentByTheClient reads the calls out of the source: each is made by a function named for its method, with the pattern.
func sentByTheClient(t *testing.T) map[string]bool {
	t.Helper()
	methods := map[string]string{"get": "GET", "post": "POST", "put": "PUT", "patch": "PATCH", "del": "DELETE"}
	sent := map[string]bool{}
	for _, row := range sentByOAuth2 {
		sent[row] = true
	}
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		ast.Inspect(parsed, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			name, ok := call.Fun.(*ast.Ident)
			if !ok || methods[name.Name] == "" {
				return true
			}
			if lit, ok := call.Args[0].(*ast.BasicLit); ok {
				pattern, err := strconv.Unquote(lit.Value)
				require.NoError(t, err)
				sent[methods[name.Name]+" "+placeholder.ReplaceAllString(pattern, "{}")] = true
			}
			return true
		})
	}
	return sent
}

// The client can send, and the server routes, each endpoint of the contract.
func TestParity(t *testing.T) {
	t.Parallel()
	rows := endpointsOfTheContract(t)
	require.Len(t, rows, 206)
	var description struct {
		Paths map[string]map[string]any `json:"paths"`
	}
	require.NoError(t, stacktest.New(t).Client().Do(t.Context(), "GET", "/openapi.json", nil, &description))
	routed := map[string]bool{}
	for pattern, item := range description.Paths {
		for method := range item {
			routed[strings.ToUpper(method)+" "+placeholder.ReplaceAllString(pattern, "{}")] = true
		}
	}
	sent := sentByTheClient(t)
	for _, row := range rows {
		plain := placeholder.ReplaceAllString(row, "{}")
		assert.True(t, routed[plain], "the server does not route %s", row)
		assert.True(t, sent[plain], "the client cannot send %s", row)
	}
}
