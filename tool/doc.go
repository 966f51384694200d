// Package tool makes typed Go functions into tools that a language model can call.
//
// A [Tool] carries a JSON Schema made from the Go type of its arguments, reads and checks what the model sends, runs the
// function, and gives back text:
//
//	type PostIn struct {
//		Channel string `json:"channel" jsonschema:"name of the channel, with its #"`
//		Text    string `json:"text"`
//		Thread  string `json:"thread,omitempty"` // omitempty or omitzero: the model may leave it out
//	}
//
//	post, err := tool.New("slack_post", "Post a message to a Slack channel.",
//		func(ctx context.Context, in PostIn) (PostOut, error) { ... mission.Proxy(ctx, ...) ... })
//
// A call that is one HTTP request needs no function. A [ProxyTool] fixes the service, the method and the URL, and maps the
// arguments into them; the model chooses neither where the request goes nor which credential it carries:
//
//	issue, err := tool.ProxyTool[IssueIn]("github_issue", "Open an issue.", mission, tool.Endpoint{
//		Service: "github", Method: "POST", URL: "https://api.github.com/repos/{owner}/{repo}/issues",
//	})
//
// Tools hold no state of a call, so one tool serves any number of concurrent runs. Make those that outlive a Mission with
// [FromContext], and hand each run its Mission with [NewContext].
//
// # Failures
//
// What a model can act on goes back to it as text: wrong arguments, a refused request, an error of the function. What must
// end the run comes back as a Go error: a finished context, a revoked passport, a cap that is reached, an approval that a
// human has to give, a write whose outcome is unknown, a panic. [DefaultPolicy] draws the line, [WithPolicy] moves it.
//
// The package knows nothing of any agent library. A *Tool has the methods Name, Description and Call that langchaingo asks
// of a tool; the langchain module next door builds on it. What a tool returns is foreign text: put it into messages of the
// tool role, never into a system prompt.
package tool
