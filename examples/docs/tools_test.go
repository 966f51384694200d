package docs

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/langchain"
	"github.com/getstack-go/stack/stacktest"
	"github.com/getstack-go/stack/tool"
)

// refundIn has four arguments of four types; note may be left out.
type refundIn struct {
	Invoice string   `json:"invoice" jsonschema:"number of the invoice, such as INV-2041"`
	Cents   int      `json:"cents" jsonschema:"how much to pay back"`
	Reasons []string `json:"reasons"`
	Note    string   `json:"note,omitempty"`
}

// newRefundTool makes a tool of a Go function. What the model sends is checked against the schema before the function runs.
func newRefundTool(refund func(ctx context.Context, in refundIn) (string, error)) (*langchain.Tool, error) {
	return langchain.NewTool("refund", "Pay an invoice back, in part or whole.", refund,
		tool.WithSchema(func(s *jsonschema.Schema) { // what a Go type cannot say
			s.Properties["cents"].Minimum = jsonschema.Ptr(1.0)
			s.Properties["cents"].Maximum = jsonschema.Ptr(10_000.0)
			s.Properties["reasons"].Items.Enum = []any{"duplicate", "fraud", "goodwill"}
		}))
}

func Example_typedTool() {
	refund, err := newRefundTool(func(_ context.Context, in refundIn) (string, error) {
		return fmt.Sprintf("%d cents of %s are on their way", in.Cents, in.Invoice), nil
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	for _, fromModel := range []string{
		`{"invoice":"INV-2041","cents":500,"reasons":["duplicate"]}`,
		`{"invoice":"INV-2041","cents":500000,"reasons":["duplicate"]}`,
	} {
		answer, err := refund.Call(ctx, fromModel)
		fmt.Println(answer, err)
	}
	// Output:
	// 500 cents of INV-2041 are on their way <nil>
	// {"error":{"code":"INVALID_ARGUMENTS","message":"cents: maximum: 500000/1 is greater than 10000.000000; the arguments are invoice (string, required), cents (integer, required), reasons (array, required), note (string)"}} <nil>
}

// issuesIn fills the placeholders of a URL; what has no placeholder would be the body.
type issuesIn struct {
	Owner string `json:"owner"`
	Repo  string `json:"repo"`
	State string `json:"state,omitempty" jsonschema:"open, closed or all"`
}

// issues is made before there is a Mission: it finds that of its run in the context.
var issues = langchain.Must(langchain.ProxyTool[issuesIn]("github_issues", "List the issues of a repository.", tool.FromContext(),
	langchain.Endpoint{Service: "github", Method: "GET", URL: "https://api.github.com/repos/{owner}/{repo}/issues?state={state}"}))

// errBooksClosed is a failure of this program's own.
var errBooksClosed = errors.New("the books of this month are closed")

// stopWhenClosed ends the run for one more kind of error, and leaves the rest to the default.
func stopWhenClosed(err error) (observation string, abort bool) {
	if errors.Is(err, errBooksClosed) {
		return "", true
	}
	return tool.DefaultPolicy(err)
}

func Example_proxyTool() {
	srv, err := stacktest.Start()
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	srv.Upstream("api.github.com", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Println("GitHub got", r.Method, r.URL.RequestURI())
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`[{"number":7}]`))
	}))
	agent := srv.Agent(setup{}, stacktest.AgentConfig{Services: []string{"github"}})
	err = srv.Client().Passports.RunMission(context.Background(), stack.MissionParams{AgentID: agent.ID, Intent: "Read issues",
		Services: []string{"github"}},
		func(ctx context.Context, mission *stack.Mission) error {
			ctx = tool.NewContext(ctx, mission)
			for _, fromModel := range []string{
				`{"owner":"getstack-go","repo":"stack","state":"open"}`,
				`{"owner":"getstack-go","repo":"stack/../../user"}`,
			} {
				answer, callErr := issues.Call(ctx, fromModel)
				if callErr != nil {
					return callErr
				}
				fmt.Println(answer)
			}
			return nil
		})
	fmt.Println(err)

	closed, err := langchain.NewTool("book", "Book an amount.",
		func(context.Context, refundIn) (string, error) { return "", errBooksClosed }, tool.WithPolicy(stopWhenClosed))
	if err != nil {
		log.Fatal(err)
	}
	_, err = closed.Call(context.Background(), `{"invoice":"INV-2041","cents":500,"reasons":[]}`)
	fmt.Println(errors.Is(err, errBooksClosed))
	// Output:
	// GitHub got GET /repos/getstack-go/stack/issues?state=open
	// {"status":200,"body":[{"number":7}]}
	// {"error":{"code":"INVALID_ARGUMENTS","message":"repo: \"stack/../../user\" cannot be part of a path"}}
	// <nil>
	// true
}

// setup lets a program, which has no test, use the helpers of stacktest.
type setup struct{}

func (setup) Helper()                           {}
func (setup) Context() context.Context          { return context.Background() }
func (setup) Cleanup(func())                    {}
func (setup) Logf(format string, args ...any)   { log.Printf(format, args...) }
func (setup) Errorf(format string, args ...any) { log.Fatalf(format, args...) }
func (setup) Fatalf(format string, args ...any) { log.Fatalf(format, args...) }
