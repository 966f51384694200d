package tool_test

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/tool"
)

type WeatherIn struct {
	City string `json:"city" jsonschema:"its name"`
}

func weather(_ context.Context, in WeatherIn) (string, error) {
	if in.City != "Oslo" {
		return "", fmt.Errorf("no weather for %s", in.City)
	}
	return "snow", nil
}

func ExampleNew() {
	t, err := tool.New("weather", "Tell the weather of a city.", weather)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(t.Parameters()["properties"])
	for _, arguments := range []string{
		`{"city":"Oslo"}`, // what a model should send
		"```json\n{\"city\":\"Oslo\"}\n```",
		`{"city":"Rome"}`,
		`{"town":"Oslo"}`,
	} {
		text, err := t.Call(context.Background(), arguments)
		if err != nil { // ends the run
			fmt.Println(err)
			return
		}
		fmt.Println(text)
	}
	// Output:
	// map[city:map[description:its name type:string]]
	// snow
	// snow
	// {"error":{"code":"FAILED","message":"no weather for Rome"}}
	// {"error":{"code":"INVALID_ARGUMENTS","message":"unexpected additional properties [\"town\"]; the arguments are city (string, required)"}}
}

// What a Go type cannot say, such as a list of allowed values, is added to the schema.
func ExampleWithSchema() {
	t := tool.Must(tool.New("weather", "Tell the weather of a city.", weather,
		tool.WithSchema(func(s *jsonschema.Schema) { s.Properties["city"].Enum = []any{"Oslo", "Rome"} })))
	fmt.Println(t.Parameters()["properties"])
	// Output:
	// map[city:map[description:its name enum:[Oslo Rome] type:string]]
}

// printProxy stands in for a Mission, which is a Proxier, too.
type printProxy struct{}

func (printProxy) Proxy(_ context.Context, r stack.ProxyRequest) (*stack.ProxyResponse, error) {
	body, err := json.Marshal(r.Body)
	fmt.Println(r.Service, r.Method, r.URL, r.Query, string(body))
	return &stack.ProxyResponse{Status: 201, Body: json.RawMessage(`{"number":7}`)}, err
}

func ExampleProxyTool() {
	type IssueIn struct {
		Owner string `json:"owner"`
		Repo  string `json:"repo"`
		Title string `json:"title"`
		Body  string `json:"body,omitempty"`
	}
	mission := printProxy{}
	issue, err := tool.ProxyTool[IssueIn]("github_issue", "Open an issue.", mission, tool.Endpoint{
		Service: "github", Method: "POST", URL: "https://api.github.com/repos/{owner}/{repo}/issues",
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(issue.Call(context.Background(), `{"owner":"acme","repo":"site/../x","title":"Broken link"}`))
	fmt.Println(issue.Call(context.Background(), `{"owner":"acme","repo":"site","title":"Broken link"}`))
	// Output:
	// {"error":{"code":"INVALID_ARGUMENTS","message":"repo: \"site/../x\" cannot be part of a path"}} <nil>
	// github POST https://api.github.com/repos/acme/site/issues map[] {"title":"Broken link"}
	// {"status":201,"body":{"number":7}} <nil>
}

// A tool that outlives its Missions finds the current one in the context of the run.
func ExampleFromContext() {
	type SearchIn struct {
		Query string `json:"query"`
	}
	search := tool.Must(tool.ProxyTool[SearchIn]("search", "Search the tickets.", tool.FromContext(), tool.Endpoint{
		Service: "zendesk", Method: "GET", URL: "https://acme.zendesk.com/api/v2/search.json?query={query}",
	}))

	mission := printProxy{}
	ctx := tool.NewContext(context.Background(), mission) // mission.Context() for a real one
	fmt.Println(search.Call(ctx, `{"query":"printer & paper"}`))
	// Output:
	// zendesk GET https://acme.zendesk.com/api/v2/search.json map[query:printer & paper] null
	// {"status":201,"body":{"number":7}} <nil>
}

// A policy decides which failures a model is told of.
func ExampleWithPolicy() {
	t := tool.Must(tool.New("weather", "Tell the weather of a city.", weather,
		tool.WithPolicy(func(err error) (string, bool) {
			if text, abort := tool.DefaultPolicy(err); abort {
				return text, abort
			}
			return "That did not work. Ask the user for another city.", false
		})))
	fmt.Println(t.Call(context.Background(), `{"city":"Rome"}`))
	// Output:
	// That did not work. Ask the user for another city. <nil>
}
