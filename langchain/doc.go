// Package langchain makes STACK tools work in langchaingo's own agents.
//
// A tool is a Go function or one proxied request, with a JSON Schema made from the Go type of its arguments (see package
// [github.com/getstack-go/stack/tool]):
//
//	post, err := langchain.NewTool("slack_post", "Post a message to a Slack channel.",
//		func(ctx context.Context, in PostIn) (PostOut, error) { ... mission.Proxy(ctx, ...) ... })
//
// langchaingo tells a model only that every tool takes one text named "__arg1". [Model] wraps the language model so that it
// is told the real schemas, so that several calls in one answer work, with OpenAI and Anthropic alike, and so that a Mission
// that ends mid-call is reported as that and not as a network error:
//
//	ts := []tools.Tool{post, issue}
//	agent := agents.NewOpenAIFunctionsAgent(langchain.Model(llm, ts...), ts)
//	answer, err := chains.Run(mission.Context(), agents.NewExecutor(agent), "Acknowledge ticket 17.")
//
// [Run] is a loop of our own beside those agents: calls of one answer run at the same time, an answer that was cut or refused is
// an error, and the result says what was called and used. [Guard] has a tool's answers scanned for prompt injection before
// the model sees them. Package replay records a run and replays it in tests.
//
// What a model can act on, a tool tells it; what must end the run, such as a revoked passport, chains.Run returns, and
// errors.As finds the *stack.MissionEndedError in it. [Handler] logs a run to slog; [WithHandler] calls the callbacks that
// langchaingo leaves to each tool.
//
// [OpenAI], [Anthropic] and [OpenRouter] are langchaingo's own clients, run through STACK's gateway under the Mission's
// passport, so that not even the model's key is in the process.
//
// Outside its tests the package imports of langchaingo only llms, its OpenAI and Anthropic clients, callbacks and schema,
// which are light.
package langchain
