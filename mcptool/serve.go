package mcptool

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/tool"
)

// Serve adds tools to an MCP server. Their calls run under the Mission: those of tools made with [tool.FromContext] go through
// its proxy, and all are stopped when it ends. Run the server with whatever transport its clients want, and close the
// Mission when it stops.
//
// A failure that a model can act on is a result with IsError. So is one that would end an agent's run (a revoked passport, a
// reached cap, an approval that somebody has to give): the client is told its code, and a later call is refused the same
// way. What the server's reasons were stays here: hook a logger to the tools, and look at [stack.Mission.Err].
//
// It fails, adding none, when the Mission is nil and when the names of two tools differ in case at most.
func Serve(server *mcp.Server, mission *stack.Mission, tools ...*tool.Tool) error {
	switch {
	case server == nil:
		return &stack.ParamError{Param: "server", Reason: "is nil; make one with mcp.NewServer"}
	case mission == nil:
		return &stack.ParamError{Param: "mission", Reason: "is nil; the tools' calls run under it"}
	}
	set, err := tool.NewSet(tools...)
	if err != nil {
		return err
	}
	for _, t := range set.All() {
		server.AddTool(&mcp.Tool{Name: t.Name(), Description: t.Description(), InputSchema: t.Schema()}, handler(mission, t))
	}
	return nil
}

func handler(mission *stack.Mission, t *tool.Tool) mcp.ToolHandler {
	return func(ctx context.Context, request *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		ctx, cancel := context.WithCancelCause(tool.NewContext(ctx, mission))
		defer cancel(nil)
		ended := mission.Context()
		defer context.AfterFunc(ended, func() { cancel(context.Cause(ended)) })()
		if ended.Err() != nil {
			cancel(context.Cause(ended)) // AfterFunc does so in a goroutine, perhaps too late
		}
		out := t.Do(ctx, string(request.Params.Arguments))
		text := out.Output
		if out.Abort {
			text = stopped(out.Err)
		}
		return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: text}}, IsError: out.Err != nil}, nil
	}
}

// stopped tells a client that it cannot go on, and by its code why: the text of the error is for the log on this side.
func stopped(err error) string {
	code := "STOPPED"
	var refused *stack.Error
	var ended *stack.MissionEndedError
	switch {
	case errors.As(err, &refused) && refused.Code != "":
		code = refused.Code
	case errors.As(err, &ended):
		code = "MISSION_ENDED"
	}
	text, err := json.Marshal(map[string]any{"error": map[string]string{"code": code, "message": "this cannot go on"}})
	if err != nil {
		panic(err) // strings always encode
	}
	return string(text)
}
