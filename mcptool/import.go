package mcptool

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/jsonschema-go/jsonschema"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/tool"
)

// maxTools bounds what is taken from one server. A model that has more to choose from chooses badly.
const maxTools = 256

// ImportParams say which tools of a server become ours, and how their calls are recorded.
type ImportParams struct {
	// Prefix goes before each tool's name, to tell the tools of several servers apart.
	Prefix string
	// Only names the tools to take, as the server names them. Nil takes all.
	Only []string
	// Mission, if any, records each call under Service, which must be one that the Mission declared. Leave it out for a server
	// that is reached through the Mission's own HTTP client: what is proxied is recorded already.
	Mission *stack.Mission
	Service string
	// Options are given to each tool, such as [tool.WithPolicy].
	Options []tool.Option
}

// ServerError says that the server's tool has failed: its own words, for the model.
type ServerError struct {
	Tool string // as the server names it
	Text string
}

// Error returns what the server said.
func (e *ServerError) Error() string {
	if e.Text == "" {
		return e.Tool + " failed"
	}
	return e.Text
}

// Import makes tools of those that an MCP server offers. A tool keeps its schema, against which arguments are checked before
// they are sent, and its name, in which characters that models' providers refuse become underscores. The result is the
// text of the answer, or its structured content where there is no text; images, sound and other resources are named by
// their kind and size. A call honours its context, and the server is told when it ends.
//
// The tools stay good as long as the session does. Import fails when the server cannot be asked, when it lacks a tool of
// Only, when it offers more than 256 tools or two whose names become alike, and when a schema is not one of an object.
func Import(ctx context.Context, session *mcp.ClientSession, params ImportParams) ([]*tool.Tool, error) {
	switch {
	case session == nil:
		return nil, &stack.ParamError{Param: "session", Reason: "is nil; connect a client to the server first"}
	case params.Mission != nil && params.Service == "":
		return nil, &stack.ParamError{Param: "service", Reason: "is empty; name the declared service under which the Mission records the calls"}
	case params.Mission == nil && params.Service != "":
		return nil, &stack.ParamError{Param: "service", Reason: fmt.Sprintf("is %q without a Mission that could record it", params.Service)}
	}
	var tools []*tool.Tool
	missing := slices.Clone(params.Only)
	for offered, err := range session.Tools(ctx, nil) {
		if err != nil {
			return nil, fmt.Errorf("mcptool: list the server's tools: %w", err)
		}
		if params.Only != nil {
			i := slices.Index(missing, offered.Name)
			if i < 0 {
				continue
			}
			missing = slices.Delete(missing, i, i+1)
		}
		if len(tools) == maxTools {
			return nil, fmt.Errorf("mcptool: the server offers more than %d tools; name those that are needed in Only", maxTools)
		}
		t, err := wrap(session, offered, params)
		if err != nil {
			return nil, fmt.Errorf("mcptool: tool %q of the server: %w", offered.Name, err)
		}
		tools = append(tools, t)
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("mcptool: the server has no tool %s", strings.Join(missing, ", "))
	}
	if _, err := tool.NewSet(tools...); err != nil {
		return nil, fmt.Errorf("mcptool: %w", err)
	}
	return tools, nil
}

func wrap(session *mcp.ClientSession, offered *mcp.Tool, params ImportParams) (*tool.Tool, error) {
	text, err := json.Marshal(offered.InputSchema)
	if err != nil {
		return nil, err
	}
	var schema jsonschema.Schema
	if err = json.Unmarshal(text, &schema); err != nil {
		return nil, fmt.Errorf("its schema is not well-formed: %w", err)
	}
	if schema.Type == "object" && schema.Properties == nil {
		schema.Properties = map[string]*jsonschema.Schema{} // providers refuse an object without
	}
	name := offered.Name
	call := func(ctx context.Context, arguments map[string]any) (string, error) {
		if params.Mission != nil {
			params.Mission.Log(params.Service, "mcp", name)
		}
		result, err := session.CallTool(ctx, &mcp.CallToolParams{Name: name, Arguments: arguments})
		if err != nil {
			return "", err
		}
		said, err := read(result)
		if err != nil {
			return "", err
		}
		if result.IsError {
			return "", &ServerError{Tool: name, Text: said}
		}
		return said, nil
	}
	options := append([]tool.Option{tool.WithSchema(func(s *jsonschema.Schema) { *s = schema })}, params.Options...)
	return tool.New(params.Prefix+usable(name), describe(offered), call, options...)
}

// usable is a name that every provider takes.
func usable(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return '_'
	}, name)
}

func describe(offered *mcp.Tool) string {
	for _, text := range []string{offered.Description, offered.Title} {
		if strings.TrimSpace(text) != "" {
			return text
		}
	}
	return offered.Name
}

// errNeedsInput is the answer of a tool that asks back.
var errNeedsInput = errors.New("the tool asks for more input, which this client does not give")

// read makes text of a result.
func read(result *mcp.CallToolResult) (string, error) {
	if result.NeedsInput() {
		return "", errNeedsInput
	}
	var parts []string
	for _, content := range result.Content {
		switch c := content.(type) {
		case *mcp.TextContent:
			parts = append(parts, c.Text)
		case *mcp.ImageContent:
			parts = append(parts, fmt.Sprintf("[image, %s, %d bytes]", c.MIMEType, len(c.Data)))
		case *mcp.AudioContent:
			parts = append(parts, fmt.Sprintf("[audio, %s, %d bytes]", c.MIMEType, len(c.Data)))
		case *mcp.ResourceLink:
			parts = append(parts, fmt.Sprintf("[link to %s, %s]", c.URI, c.MIMEType))
		case *mcp.EmbeddedResource:
			parts = append(parts, embedded(c.Resource))
		}
	}
	if len(parts) > 0 || result.StructuredContent == nil {
		return strings.Join(parts, "\n"), nil
	}
	text, err := json.Marshal(result.StructuredContent)
	return string(text), err
}

func embedded(resource *mcp.ResourceContents) string {
	switch {
	case resource == nil:
		return "[resource]"
	case resource.Text != "":
		return resource.Text
	}
	return fmt.Sprintf("[resource %s, %s, %d bytes]", resource.URI, resource.MIMEType, len(resource.Blob))
}
