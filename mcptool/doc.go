// Package mcptool joins tools and the Model Context Protocol (MCP). [Import] makes tools of what an MCP server offers, so that
// an agent calls them as it calls its others: arguments are checked before they leave, failures become observations, each call
// is on a Mission's account. [Serve] is the other way round: it offers an agent's tools to any MCP client, each call under a
// Mission, until that ends.
//
// It is a module of its own, for those who need it, on top of the protocol's official SDK for Go.
//
// # Servers behind the credential proxy
//
// An MCP server that wants a credential over HTTP can be reached through the credential proxy, which injects it: the
// session's HTTP client is that of the Mission. Calls are then recorded, scanned and limited like all proxied calls. The
// proxy hands on whole answers, so the standing stream for messages of the server stays off:
//
//	transport := &mcp.StreamableClientTransport{Endpoint: "https://mcp.notes.example/mcp",
//		HTTPClient: mission.HTTPClient("notes"), DisableStandaloneSSE: true}
//	session, err := mcp.NewClient(&mcp.Implementation{Name: "triage", Version: "1"}, nil).Connect(ctx, transport, nil)
//	…
//	tools, err := mcptool.Import(ctx, session, mcptool.ImportParams{Prefix: "notes_"})
//
// What a server returns, and how it describes its tools, is foreign text. Take only the tools that the agent needs (Only), and
// have results scanned before a model sees them.
package mcptool
