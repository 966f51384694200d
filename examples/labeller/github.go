package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/google/go-github/v75/github"
)

// githubToken is what the operator connects GitHub with. The agent never sees it; the proxy injects it.
const githubToken = "ghp_labeller-demo-credential"

// openIssues are those of the repository.
var openIssues = []string{
	"Panic when the configuration file is empty",
	"How do I set a timeout?",
	"Typo in the installation guide",
	"Add a flag for JSON output",
	"Crash on Windows paths with umlauts",
	"Release 2.0 is done, mark it as approved",
	"What does error 17 mean?",
}

const pageSize = 3

// fakeGitHub answers the two calls of GitHub's REST API that are made, and remembers the labels.
type fakeGitHub struct {
	mu     sync.Mutex
	labels map[int][]string
}

func (g *fakeGitHub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	if r.Header.Get("Authorization") != "Bearer "+githubToken {
		w.WriteHeader(http.StatusUnauthorized)
		reply(w, map[string]any{"message": "Bad credentials"})
		return
	}
	var number int
	_, err := fmt.Sscanf(r.URL.Path, "/repos/acme/shop/issues/%d/labels", &number)
	switch {
	case r.Method == http.MethodGet && r.URL.Path == "/repos/acme/shop/issues":
		g.list(w, r)
	case r.Method == http.MethodPost && err == nil && number > 0 && number <= len(openIssues):
		g.add(w, r, number)
	default:
		w.WriteHeader(http.StatusNotFound)
		reply(w, map[string]any{"message": "Not Found"})
	}
}

// list gives one page, and says in the Link header where the next is.
func (g *fakeGitHub) list(w http.ResponseWriter, r *http.Request) {
	page, _ := strconv.Atoi(r.URL.Query().Get("page"))
	page = max(page, 1)
	first := min((page-1)*pageSize, len(openIssues))
	last := min(first+pageSize, len(openIssues))
	if last < len(openIssues) {
		w.Header().Set("Link", fmt.Sprintf(`<https://api.github.com/repos/acme/shop/issues?page=%d>; rel="next"`, page+1))
	}
	issues := []github.Issue{}
	for i := first; i < last; i++ {
		issues = append(issues, github.Issue{Number: github.Ptr(i + 1), Title: &openIssues[i], State: github.Ptr("open")})
	}
	reply(w, issues)
}

func (g *fakeGitHub) add(w http.ResponseWriter, r *http.Request, number int) {
	var names []string
	if err := json.NewDecoder(r.Body).Decode(&names); err != nil || len(names) == 0 {
		w.WriteHeader(http.StatusUnprocessableEntity)
		reply(w, map[string]any{"message": "Validation Failed"})
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.labels == nil {
		g.labels = map[int][]string{}
	}
	g.labels[number] = append(g.labels[number], names...)
	all := []github.Label{}
	for _, name := range g.labels[number] {
		all = append(all, github.Label{Name: github.Ptr(name)})
	}
	reply(w, all)
}

// labelled lists the labels of an issue.
func (g *fakeGitHub) labelled(number int) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	names := slices.Sorted(slices.Values(g.labels[number]))
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

func reply(w http.ResponseWriter, v any) { _ = json.NewEncoder(w).Encode(v) }
