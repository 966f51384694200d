package clients_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-github/v75/github"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

func newGitHub(t *testing.T, handler http.Handler, constraints ...stack.Constraint) (*bench, *github.Client) {
	t.Helper()
	b := newBench(t, "github", "api.github.com", handler, constraints...)
	return b, github.NewClient(b.mission.HTTPClient("github"))
}

// Pages follow the Link header, and numbers keep all their digits.
func TestGitHubPages(t *testing.T) {
	t.Parallel()
	b, gh := newGitHub(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		page, _ := strconv.Atoi(r.URL.Query().Get("page"))
		page = max(page, 1)
		link := fmt.Sprintf(`<https://api.github.com/repositories/1/issues?state=open&page=%d>; rel="next", `+
			`<https://api.github.com/repositories/1/issues?state=open&page=3>; rel="last"`, page+1)
		if page == 3 {
			link = `<https://api.github.com/repositories/1/issues?state=open&page=1>; rel="first"`
		}
		answer(http.StatusOK, fmt.Sprintf(`[{"id":900719925474099%d,"number":%d,"title":"a <b> & ü"}]`, page+2, page), "Link", link,
			"X-RateLimit-Limit", "5000", "X-RateLimit-Remaining", strconv.Itoa(5000-page))(w, r)
	}))
	var ids []int64
	opts := &github.IssueListByRepoOptions{State: "open", Labels: []string{"needs triage", "ü"}}
	for {
		issues, resp, err := gh.Issues.ListByRepo(t.Context(), "acme", "shop", opts)
		require.NoError(t, err)
		for _, issue := range issues {
			ids = append(ids, issue.GetID())
			assert.Equal(t, "a <b> & ü", issue.GetTitle())
		}
		assert.Equal(t, 5000, resp.Rate.Limit)
		assert.Equal(t, 5000-len(ids), resp.Rate.Remaining)
		if resp.NextPage == 0 {
			break
		}
		opts.ListOptions.Page = resp.NextPage
	}
	assert.Equal(t, []int64{9007199254740993, 9007199254740994, 9007199254740995}, ids)
	arrived := b.arrived()
	require.Len(t, arrived, 3)
	assert.Equal(t, "/repos/acme/shop/issues", arrived[0].Path)
	assert.Equal(t, "labels=needs+triage%2C%C3%BC&state=open", arrived[0].Query)
	assert.Contains(t, arrived[0].Header.Get("Accept"), "application/vnd.github", "the client's own headers arrive")
	assert.NotEmpty(t, arrived[0].Header.Get("X-Github-Api-Version"))
}

// Bodies are JSON, lists too; a write arrives once, and an answer without a body is one.
func TestGitHubWrites(t *testing.T) {
	t.Parallel()
	b, gh := newGitHub(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodDelete:
			w.WriteHeader(http.StatusNoContent)
		case http.MethodPatch:
			answer(http.StatusOK, `{"number":7,"state":"closed"}`)(w, r)
		default:
			answer(http.StatusCreated, `[{"name":"bug"}]`)(w, r)
		}
	}))
	labels, resp, err := gh.Issues.AddLabelsToIssue(t.Context(), "acme", "shop", 7, []string{"bug"})
	require.NoError(t, err)
	assert.Equal(t, "bug", labels[0].GetName())
	assert.Equal(t, http.StatusCreated, resp.StatusCode)
	issue, _, err := gh.Issues.Edit(t.Context(), "acme", "shop", 7, &github.IssueRequest{State: github.Ptr("closed")})
	require.NoError(t, err)
	assert.Equal(t, "closed", issue.GetState())
	_, err = gh.Issues.RemoveLabelForIssue(t.Context(), "acme", "shop", 7, "a/b c")
	require.NoError(t, err)

	arrived := b.arrived()
	require.Len(t, arrived, 3)
	assert.JSONEq(t, `["bug"]`, string(arrived[0].Body))
	assert.JSONEq(t, `{"state":"closed"}`, string(arrived[1].Body))
	assert.Equal(t, "application/json", arrived[1].Header.Get("Content-Type"))
	assert.Equal(t, "DELETE", arrived[2].Method)

	var closed error
	b.mission.Close(&closed)
	require.NoError(t, closed)
	assert.Equal(t, 3, b.RequireCheckedOut(t, b.mission.JTI()).ActionsCount, "each is on the record")
}

// GitHub's own errors are go-github's.
func TestGitHubErrors(t *testing.T) {
	t.Parallel()
	_, gh := newGitHub(t, answer(http.StatusUnprocessableEntity,
		`{"message":"Validation Failed","errors":[{"resource":"Label","field":"name","code":"already_exists"}]}`))
	_, _, err := gh.Issues.CreateLabel(t.Context(), "acme", "shop", &github.Label{Name: github.Ptr("bug")})
	var refused *github.ErrorResponse
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, http.StatusUnprocessableEntity, refused.Response.StatusCode)
	assert.Equal(t, "already_exists", refused.Errors[0].Code)

	_, gh = newGitHub(t, answer(http.StatusBadGateway, "<html>oops</html>", "Content-Type", "text/html"))
	_, _, err = gh.Issues.Get(t.Context(), "acme", "shop", 1)
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, http.StatusBadGateway, refused.Response.StatusCode)
}

// Both rate limits are read from their headers, and go-github keeps to them without asking again.
func TestGitHubRateLimits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reset := time.Now().Add(10 * time.Minute)
		b, gh := newGitHub(t, answer(http.StatusForbidden, `{"message":"API rate limit exceeded"}`, "X-RateLimit-Limit", "60",
			"X-RateLimit-Remaining", "0", "X-RateLimit-Reset", strconv.FormatInt(reset.Unix(), 10)))
		defer b.mission.Close(nil)
		var limited *github.RateLimitError
		for range 2 {
			_, _, err := gh.Issues.Get(t.Context(), "acme", "shop", 1)
			require.ErrorAs(t, err, &limited)
			assert.Equal(t, []int{60, 0}, []int{limited.Rate.Limit, limited.Rate.Remaining})
			assert.Equal(t, reset.Unix(), limited.Rate.Reset.Unix())
		}
		assert.Len(t, b.arrived(), 1)
	})
	synctest.Test(t, func(t *testing.T) {
		b, gh := newGitHub(t, answer(http.StatusForbidden, `{"message":"You have exceeded a secondary rate limit",`+
			`"documentation_url":"https://docs.github.com/rest/overview/rate-limits-for-the-rest-api#about-secondary-rate-limits"}`,
			"Retry-After", "90"))
		defer b.mission.Close(nil)
		var abuse *github.AbuseRateLimitError
		for range 2 {
			_, _, err := gh.Issues.Get(t.Context(), "acme", "shop", 1)
			require.ErrorAs(t, err, &abuse)
			assert.Equal(t, 90*time.Second, abuse.GetRetryAfter().Round(time.Second))
		}
		assert.Len(t, b.arrived(), 1)
	})
}

// Conditional requests work: the tag goes out, and 304 comes back without a body.
func TestGitHubConditional(t *testing.T) {
	t.Parallel()
	_, gh := newGitHub(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("If-None-Match") == `"v1"` {
			w.Header().Set("ETag", `"v1"`)
			w.WriteHeader(http.StatusNotModified)
			return
		}
		answer(http.StatusOK, `{"number":7}`, "ETag", `"v1"`)(w, r)
	}))
	_, resp, err := gh.Issues.Get(t.Context(), "acme", "shop", 7)
	require.NoError(t, err)
	req, err := gh.NewRequest("GET", "repos/acme/shop/issues/7", nil)
	require.NoError(t, err)
	req.Header.Set("If-None-Match", resp.Header.Get("ETag"))
	resp, err = gh.Do(t.Context(), req, nil)
	var unchanged *github.ErrorResponse
	require.ErrorAs(t, err, &unchanged, "which go-github takes for an error")
	assert.Equal(t, http.StatusNotModified, resp.StatusCode)
}

// A redirect on the same host is followed by the proxy; one to another host is given to the client, and the credential never
// goes along.
func TestGitHubRedirects(t *testing.T) {
	t.Parallel()
	b, gh := newGitHub(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/repos/old/name":
			http.Redirect(w, r, "https://api.github.com/repositories/1", http.StatusMovedPermanently)
		case "/repos/acme/shop/tarball/main":
			http.Redirect(w, r, "https://codeload.github.com/acme/shop.tar.gz?token=t", http.StatusFound)
		case "/repos/elsewhere/name":
			http.Redirect(w, r, "https://evil.example/repositories/1", http.StatusMovedPermanently)
		default:
			answer(http.StatusOK, `{"full_name":"acme/shop"}`)(w, r)
		}
	}))
	b.Upstream("evil.example", answer(http.StatusOK, `{}`))
	repo, _, err := gh.Repositories.Get(t.Context(), "old", "name")
	require.NoError(t, err)
	assert.Equal(t, "acme/shop", repo.GetFullName())
	link, _, err := gh.Repositories.GetArchiveLink(t.Context(), "acme", "shop", github.Tarball,
		&github.RepositoryContentGetOptions{Ref: "main"}, 1)
	require.NoError(t, err)
	assert.Equal(t, "https://codeload.github.com/acme/shop.tar.gz?token=t", link.String())
	_, _, err = gh.Repositories.Get(t.Context(), "elsewhere", "name")
	var apiErr *stack.Error
	require.ErrorAs(t, err, &apiErr, "the client follows, and the proxy does not")
	assert.Equal(t, "PROXY_HOST_NOT_ALLOWED", apiErr.Code)
	assert.Empty(t, b.Forwarded("evil.example"))
}

// Binary uploads are refused before anything is sent, with what would be taken.
func TestGitHubUpload(t *testing.T) {
	t.Parallel()
	b, gh := newGitHub(t, answer(http.StatusCreated, `{}`))
	b.Upstream("uploads.github.com", answer(http.StatusCreated, `{"id":1}`))
	path := filepath.Join(t.TempDir(), "tool.zip")
	require.NoError(t, os.WriteFile(path, []byte("PK\x03\x04\xff\xfe"), 0o600))
	file, err := os.Open(path)
	require.NoError(t, err)
	defer file.Close() //nolint:errcheck // it was only read
	before := b.Requests()
	_, _, err = gh.Repositories.UploadReleaseAsset(t.Context(), "acme", "shop", 1, &github.UploadOptions{Name: "tool.zip"}, file)
	var refused *stack.ParamError
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, "body", refused.Param)
	assert.Equal(t, before, b.Requests())
}

// What STACK refuses comes through go-github with its type.
func TestGitHubRefusals(t *testing.T) {
	t.Parallel()
	b, gh := newGitHub(t, answer(http.StatusOK, `{}`), stack.Constraint{Path: "method", Op: stack.OpEq, Value: "GET"})
	_, _, err := gh.Issues.CreateComment(t.Context(), "acme", "shop", 1, &github.IssueComment{Body: github.Ptr("hi")})
	var apiErr *stack.Error
	require.ErrorAs(t, err, &apiErr)
	assert.Equal(t, http.StatusForbidden, apiErr.Status)
	assert.Empty(t, b.arrived())

	b, gh = newGitHub(t, answer(http.StatusOK, `{}`))
	_, err = b.client.Passports.Revoke(t.Context(), b.mission.JTI(), "enough")
	require.NoError(t, err)
	_, _, err = gh.Issues.Get(t.Context(), "acme", "shop", 1)
	require.ErrorIs(t, err, stack.ErrPassportRevoked)
	<-b.mission.Context().Done()
	_, _, err = gh.Issues.Get(b.mission.Context(), "acme", "shop", 1)
	require.Error(t, err, "go-github says that the context is over; its cause says why")
	assert.Empty(t, b.arrived())
}
