package mcptool_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/mcptool"
	"github.com/getstack-go/stack/stacktest"
	"github.com/getstack-go/stack/tool"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// connect connects a client to a server in memory.
func connect(t *testing.T, server *mcp.Server) *mcp.ClientSession {
	t.Helper()
	here, there := mcp.NewInMemoryTransports()
	serving, err := server.Connect(t.Context(), there, nil)
	require.NoError(t, err)
	session, err := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, nil).Connect(t.Context(), here, nil)
	require.NoError(t, err)
	t.Cleanup(func() {
		assert.NoError(t, session.Close())
		_ = serving.Wait() // ends with the client's closing
	})
	return session
}

type noteIn struct {
	Title string `json:"title" jsonschema:"of the note"`
	Stars int    `json:"stars,omitempty"`
}

type noteOut struct {
	ID int `json:"id"`
}

// notes is an MCP server with tools of several kinds.
func notes() *mcp.Server {
	server := mcp.NewServer(&mcp.Implementation{Name: "notes", Version: "1"}, nil)
	mcp.AddTool(server, &mcp.Tool{Name: "note.add", Description: "Add a note."},
		func(_ context.Context, _ *mcp.CallToolRequest, in noteIn) (*mcp.CallToolResult, noteOut, error) {
			if in.Title == "full" {
				return nil, noteOut{}, errors.New("the notebook is full")
			}
			return nil, noteOut{ID: len(in.Title) + in.Stars}, nil
		})
	raw := func(name string, result func(ctx context.Context) *mcp.CallToolResult) {
		server.AddTool(&mcp.Tool{Name: name, InputSchema: json.RawMessage(`{"type":"object"}`)},
			func(ctx context.Context, _ *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
				return result(ctx), nil
			})
	}
	raw("everything", func(context.Context) *mcp.CallToolResult {
		return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: "one"},
			&mcp.ImageContent{MIMEType: "image/png", Data: []byte("12345")},
			&mcp.EmbeddedResource{Resource: &mcp.ResourceContents{URI: "file:///a", Text: "inside"}},
			&mcp.EmbeddedResource{Resource: &mcp.ResourceContents{URI: "file:///b", MIMEType: "application/pdf", Blob: []byte("12")}},
			&mcp.ResourceLink{URI: "file:///c", MIMEType: "text/plain"}}}
	})
	raw("structured", func(context.Context) *mcp.CallToolResult {
		return &mcp.CallToolResult{StructuredContent: map[string]any{"n": 1}}
	})
	raw("slow", func(ctx context.Context) *mcp.CallToolResult {
		<-ctx.Done() // the client has given up
		return &mcp.CallToolResult{}
	})
	return server
}

func imported(t *testing.T, session *mcp.ClientSession, params mcptool.ImportParams) *tool.Set {
	t.Helper()
	tools, err := mcptool.Import(t.Context(), session, params)
	require.NoError(t, err)
	set, err := tool.NewSet(tools...)
	require.NoError(t, err)
	return set
}

func call(t *testing.T, set *tool.Set, name, arguments string) string {
	t.Helper()
	found, ok := set.Get(name)
	require.True(t, ok, name)
	answer, err := found.Call(t.Context(), arguments)
	require.NoError(t, err)
	return answer
}

func TestImport(t *testing.T) {
	t.Parallel()
	set := imported(t, connect(t, notes()), mcptool.ImportParams{Prefix: "n_"})
	require.Len(t, set.All(), 4)
	add, ok := set.Get("n_note_add")
	require.True(t, ok)
	assert.Equal(t, "Add a note.", add.Description())
	assert.JSONEq(t, `{"type":"object","required":["title"],"additionalProperties":false,"properties":{
		"title":{"type":"string","description":"of the note"},"stars":{"type":"integer"}}}`, string(add.Schema()))
	everything, _ := set.Get("n_everything")
	assert.JSONEq(t, `{"type":"object","properties":{}}`, string(everything.Schema()))
	assert.Equal(t, "everything", everything.Description(), "the name where there is no description")

	assert.JSONEq(t, `{"id":7}`, call(t, set, "n_note_add", `{"title":"abc","stars":4}`))
	assert.Equal(t, "one\n[image, image/png, 5 bytes]\ninside\n[resource file:///b, application/pdf, 2 bytes]\n[link to file:///c, text/plain]",
		call(t, set, "n_everything", ``))
	assert.JSONEq(t, `{"n":1}`, call(t, set, "n_structured", `{}`))
}

func TestImportFailures(t *testing.T) {
	t.Parallel()
	session := connect(t, notes())
	set := imported(t, session, mcptool.ImportParams{})
	assert.Contains(t, call(t, set, "note_add", `{"title":"full"}`), "the notebook is full", "the server's words are for the model")
	answer := call(t, set, "note_add", `{"stars":4}`)
	assert.Contains(t, answer, "INVALID_ARGUMENTS", "checked before they are sent")
	assert.Contains(t, answer, "title")

	add, _ := set.Get("note_add")
	out := add.Do(t.Context(), `{"title":"full"}`)
	var failed *mcptool.ServerError
	require.ErrorAs(t, out.Err, &failed)
	assert.Equal(t, "note.add", failed.Tool)

	gone, cancel := context.WithCancelCause(t.Context())
	slow, _ := set.Get("slow")
	cause := errors.New("nobody waits any more")
	done := make(chan error, 1)
	go func() {
		_, err := slow.Call(gone, ``)
		done <- err
	}()
	cancel(cause)
	require.ErrorIs(t, <-done, cause)

	_, err := mcptool.Import(t.Context(), session, mcptool.ImportParams{Only: []string{"slow", "note.remove"}})
	require.EqualError(t, err, "mcptool: the server has no tool note.remove")
	var bad *stack.ParamError
	_, err = mcptool.Import(t.Context(), session, mcptool.ImportParams{Service: "notes"})
	require.ErrorAs(t, err, &bad)
	assert.Equal(t, "service", bad.Param)
	_, err = mcptool.Import(t.Context(), nil, mcptool.ImportParams{})
	require.ErrorAs(t, err, &bad)
	assert.Equal(t, "session", bad.Param)
}

// Names that become alike are told of, and so is a schema that no model could follow.
func TestImportRefused(t *testing.T) {
	t.Parallel()
	offer := func(names ...string) *mcp.Server {
		server := mcp.NewServer(&mcp.Implementation{Name: "s", Version: "1"}, nil)
		for _, name := range names {
			server.AddTool(&mcp.Tool{Name: name, InputSchema: json.RawMessage(`{"type":"object"}`)},
				func(context.Context, *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
					return &mcp.CallToolResult{}, nil
				})
		}
		return server
	}
	session := connect(t, offer("a.b", "a/b"))
	_, err := mcptool.Import(t.Context(), session, mcptool.ImportParams{})
	require.ErrorContains(t, err, `"a_b"`)
	assert.Len(t, imported(t, session, mcptool.ImportParams{Only: []string{"a/b"}}).All(), 1)

	many := make([]string, 257)
	for i := range many {
		many[i] = "t" + string(rune('a'+i/26)) + string(rune('a'+i%26))
	}
	_, err = mcptool.Import(t.Context(), connect(t, offer(many...)), mcptool.ImportParams{})
	require.ErrorContains(t, err, "more than 256 tools")
}

// A local server's calls are on the Mission's account, under the service that it declared for them.
func TestImportRecorded(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	agent := srv.Agent(t, stacktest.AgentConfig{Services: []string{"notes"}})
	session := connect(t, notes())
	err := srv.Client().Passports.RunMission(t.Context(), stack.MissionParams{AgentID: agent.ID, Intent: "Take notes",
		Services: []string{"notes"}},
		func(_ context.Context, mission *stack.Mission) error {
			set := imported(t, session, mcptool.ImportParams{Mission: mission, Service: "notes"})
			call(t, set, "note_add", `{"title":"abc"}`)
			call(t, set, "note_add", `{"title":"full"}`)
			call(t, set, "note_add", `{}`) // never left
			assert.Equal(t, 2, mission.Summary().Calls)
			return nil
		})
	require.NoError(t, err)
	srv.RequireNoSecurityEvents(t)
}

// A server behind the credential proxy gets the credential, and the agent never has it.
func TestImportThroughProxy(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	streamable := mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return notes() }, &mcp.StreamableHTTPOptions{Stateless: true})
	srv.Upstream("mcp.notes.example", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+stacktest.DefaultCredential {
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		streamable.ServeHTTP(w, r)
	}))
	agent := srv.Agent(t, stacktest.AgentConfig{Services: []string{"notes"}})
	err := srv.Client().Passports.RunMission(t.Context(), stack.MissionParams{AgentID: agent.ID, Intent: "Take notes",
		Services: []string{"notes"}},
		func(ctx context.Context, mission *stack.Mission) error {
			transport := &mcp.StreamableClientTransport{Endpoint: "https://mcp.notes.example/mcp",
				HTTPClient: mission.HTTPClient("notes"), DisableStandaloneSSE: true}
			session, err := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, nil).Connect(ctx, transport, nil)
			require.NoError(t, err)
			defer session.Close() //nolint:errcheck // the server keeps no session
			set := imported(t, session, mcptool.ImportParams{Only: []string{"note.add"}})
			assert.JSONEq(t, `{"id":3}`, call(t, set, "note_add", `{"title":"abc"}`))
			return nil
		})
	require.NoError(t, err)
}

type postIn struct {
	Text string `json:"text"`
}

// served is a Mission whose one tool posts to Slack, offered to an MCP client.
func served(t *testing.T, srv *stacktest.Server) (*stack.Mission, *mcp.ClientSession) {
	t.Helper()
	agent := srv.Agent(t, stacktest.AgentConfig{Services: []string{"slack"}})
	mission, err := srv.Client().Passports.Mission(t.Context(), stack.MissionParams{AgentID: agent.ID, Intent: "Post",
		Services: []string{"slack"}})
	require.NoError(t, err)
	t.Cleanup(func() { mission.Close(new(error)) })
	post, err := tool.ProxyTool[postIn]("slack_post", "Post a message to Slack.", tool.FromContext(), tool.Endpoint{
		Service: "slack", Method: "POST", URL: "https://slack.com/api/chat.postMessage"})
	require.NoError(t, err)
	server := mcp.NewServer(&mcp.Implementation{Name: "agent", Version: "1"}, nil)
	require.NoError(t, mcptool.Serve(server, mission, post))
	return mission, connect(t, server)
}

func callOf(t *testing.T, session *mcp.ClientSession, arguments map[string]any) (text string, isError bool) {
	t.Helper()
	result, err := session.CallTool(t.Context(), &mcp.CallToolParams{Name: "slack_post", Arguments: arguments})
	require.NoError(t, err)
	require.Len(t, result.Content, 1)
	return result.Content[0].(*mcp.TextContent).Text, result.IsError
}

func TestServe(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	srv.Upstream("slack.com", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"ok":true}`))
	}))
	mission, session := served(t, srv)
	listed, err := session.ListTools(t.Context(), nil)
	require.NoError(t, err)
	require.Len(t, listed.Tools, 1)
	assert.Equal(t, "Post a message to Slack.", listed.Tools[0].Description)
	assert.Equal(t, map[string]any{"type": "object", "required": []any{"text"}, "additionalProperties": false,
		"properties": map[string]any{"text": map[string]any{"type": "string"}}}, listed.Tools[0].InputSchema)

	text, isError := callOf(t, session, map[string]any{"text": "hello"})
	assert.False(t, isError, text)
	assert.JSONEq(t, `{"status":200,"body":{"ok":true}}`, text)
	assert.Equal(t, 1, mission.Summary().Calls)

	text, isError = callOf(t, session, map[string]any{"txt": "hello"})
	assert.True(t, isError)
	assert.Contains(t, text, "INVALID_ARGUMENTS")

	_, err = srv.Client().Passports.Revoke(t.Context(), mission.JTI(), "it posts nonsense")
	require.NoError(t, err)
	for range 2 {
		text, isError = callOf(t, session, map[string]any{"text": "hello"})
		assert.True(t, isError)
		assert.JSONEq(t, `{"error":{"code":"PASSPORT_REVOKED","message":"this cannot go on"}}`, text)
	}
	require.ErrorIs(t, context.Cause(mission.Context()), stack.ErrPassportRevoked)
	assert.Len(t, srv.Forwarded("slack.com"), 1)
}

// A call under way stops with the Mission. Whether the write happened nobody knows then.
func TestServeStopsCalls(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	under, release := make(chan struct{}), make(chan struct{})
	defer close(release)
	srv.Upstream("slack.com", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(under)
		<-release
	}))
	mission, session := served(t, srv)
	answered := make(chan string, 1)
	go func() {
		text, _ := callOf(t, session, map[string]any{"text": "hello"})
		answered <- text
	}()
	<-under
	_, err := srv.Client().Passports.Revoke(t.Context(), mission.JTI(), "it posts nonsense")
	require.NoError(t, err)
	require.Error(t, mission.Checkpoint(t.Context())) // by which the client learns of it
	assert.Contains(t, <-answered, "OPERATION_OUTCOME_UNKNOWN", "it had left, and nobody waited for its answer")
	text, _ := callOf(t, session, map[string]any{"text": "again"})
	assert.Contains(t, text, "PASSPORT_REVOKED")
}

func TestServeRefused(t *testing.T) {
	t.Parallel()
	server := mcp.NewServer(&mcp.Implementation{Name: "agent", Version: "1"}, nil)
	var bad *stack.ParamError
	require.ErrorAs(t, mcptool.Serve(server, nil), &bad)
	assert.Equal(t, "mission", bad.Param)
	require.ErrorAs(t, mcptool.Serve(nil, nil), &bad)
	assert.Equal(t, "server", bad.Param)
}

// The protocol's HTTP server can stand before a Mission as well as a pipe.
func TestServeOverHTTP(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	srv.Upstream("slack.com", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	agent := srv.Agent(t, stacktest.AgentConfig{Services: []string{"slack"}})
	err := srv.Client().Passports.RunMission(t.Context(), stack.MissionParams{AgentID: agent.ID, Intent: "Post", Services: []string{"slack"}},
		func(ctx context.Context, mission *stack.Mission) error {
			post, err := tool.ProxyTool[postIn]("slack_post", "Post a message to Slack.", mission, tool.Endpoint{
				Service: "slack", Method: "POST", URL: "https://slack.com/api/chat.postMessage"})
			require.NoError(t, err)
			server := mcp.NewServer(&mcp.Implementation{Name: "agent", Version: "1"}, nil)
			require.NoError(t, mcptool.Serve(server, mission, post))
			web := httptest.NewServer(mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, nil))
			defer web.Close()
			session, err := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, nil).Connect(ctx,
				&mcp.StreamableClientTransport{Endpoint: web.URL, HTTPClient: web.Client()}, nil)
			require.NoError(t, err)
			text, isError := callOf(t, session, map[string]any{"text": "hello"})
			assert.False(t, isError, text)
			return session.Close()
		})
	require.NoError(t, err)
	assert.Len(t, srv.Forwarded("slack.com"), 1)
}
