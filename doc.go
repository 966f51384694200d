// Package stack is a Go SDK for STACK (getstack.run), which gives AI agents passports: an agent runs a Mission with a
// declared intent, its calls to services go through a proxy that injects the credential, checkpoints and a checkout account
// for what happened, and a kill switch stops it within a minute. It is an independent SDK, not an official one.
//
// # First call
//
//	client, err := stack.New() // STACK_API_KEY, and STACK_BASE_URL if set
//	agent, err := client.Agents.Register(ctx, stack.AgentRegisterParams{Name: "triage", AccountabilityMode: stack.Enforced})
//
// A [Client] is safe for concurrent use; make one and share it. Its fields are the services: [AgentsService],
// [ServicesService], [PassportsService], [MissionsService], [ProxyService], [AuditService] and the others. Every method takes a
// context first and returns a typed result. For an endpoint that the SDK does not know yet there is [Client.Do].
//
// # A run of an agent
//
// [PassportsService.Mission] opens a [Mission] and issues its passport; [Mission.Close], deferred at once, checks out on
// every path:
//
//	func run(ctx context.Context, client *stack.Client) (err error) {
//		mission, err := client.Passports.Mission(ctx, stack.MissionParams{
//			AgentID: agentID, Intent: "Triage and acknowledge new support tickets", Services: []string{"slack"},
//		})
//		if err != nil {
//			return err
//		}
//		defer mission.Close(&err)
//		resp, err := mission.Proxy(mission.Context(), stack.ProxyRequest{Service: "slack", Method: "POST",
//			URL: "https://slack.com/api/chat.postMessage", Body: map[string]any{"channel": "#support", "text": "On it"}})
//		…
//	}
//
// The Mission keeps its passport alive, sends checkpoints on schedule, and ends its [Mission.Context] when the passport is
// revoked, so that the agent stops. [Mission.HTTPClient] lends the same proxy to any Go API client. [Mission.Summary] sets
// what was declared beside what was done.
//
// # Guard rails
//
// [IntentsService.Simulate] says what the proxy's own checks would make of a call, and [IntentsService.SubmitAndWait] has a
// person approve it first. [ScanService.Scan] looks for prompt injection, as the proxy does in every call. [Mission.LLM] calls
// models through the gateway, without their key, and with personal data taken out. [MissionOpenParams] has caps; [GrantParams]
// has constraints, and the wall between services.
//
// # Errors
//
// An answer that refuses a call is an [*Error]; errors.Is tells its kind:
//
//	switch {
//	case errors.Is(err, stack.ErrPassportRevoked): // the kill switch was pulled
//	case errors.Is(err, stack.ErrMissionCapExceeded):
//	case errors.Is(err, stack.ErrNotFound):
//	}
//
// A Mission that is over is a [*MissionEndedError]. Arguments that the API would not take are refused before anything is
// sent, with a [*ParamError] that names the field. A proxied write whose outcome nobody can know is [ErrOutcomeUnknown].
//
// # Retries
//
// Reads, and calls that a key makes idempotent, are repeated on connection errors, 408, 429, 500, 502, 503 and 504, with
// full jitter and a retry budget per client. A call that may have acted is not sent twice blindly: a proxied write carries an
// operation id, and the SDK asks what became of it first. A Retry-After of the server is never undercut; where it is too
// long the call returns at once, with the delay in the error.
//
// # Secrets
//
// Keys, tokens and credentials are a [Secret], which no fmt verb and no logger shows; [Secret.Reveal] gives the text.
//
// # Testing without network and account
//
// Package [github.com/getstack-go/stack/stacktest] runs the whole STACK server in the test's process, on an in-memory network
// that works inside testing/synctest, and the command stackmock serves it to other languages.
package stack
