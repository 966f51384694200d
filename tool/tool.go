package tool

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"regexp"
	"runtime/debug"
	"strings"
	"unicode/utf8"

	"github.com/google/jsonschema-go/jsonschema"
)

// defaultMaxOutput bounds what a call may put into the model's context, in bytes.
const defaultMaxOutput = 32 << 10

// The names that every provider takes.
var validName = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`)

// Tool is a function that a model can call, with the schema of its arguments. It is safe for concurrent use.
type Tool struct {
	name, description string

	schema   json.RawMessage      // what the model is told
	root     *jsonschema.Schema   // the same, parsed
	resolved *jsonschema.Resolved // the same, ready to validate
	usage    string               // the arguments in a few words, for error texts

	run   func(ctx context.Context, args json.RawMessage) (string, error)
	guard *guard // nil for a tool whose answers nobody looks at
	config
}

// New makes a tool of fn. In, a struct or a map with string keys, gives the schema of the arguments: names come from json
// tags, descriptions from jsonschema tags, and a field without omitempty or omitzero is required. Out goes to the model as
// JSON, or as it is when it is a string.
//
// New fails when the name is not 1 to 64 letters, digits, underscores and hyphens, when the description is empty, when
// fn is nil, when In is of another kind or has a field that JSON Schema cannot describe (a recursive type, a channel, a
// function), and when an option is refused.
func New[In, Out any](
	name, description string, fn func(ctx context.Context, in In) (Out, error), opts ...Option,
) (*Tool, error) {
	if fn == nil {
		return nil, fmt.Errorf("tool %s: the function is nil", name)
	}
	return build[In](name, description, opts, func(t *Tool) error {
		t.run = func(ctx context.Context, args json.RawMessage) (string, error) {
			in, err := decode[In](t, args)
			if err != nil {
				return "", err
			}
			out, err := fn(ctx, in)
			if err != nil {
				return "", err
			}
			return encode(out)
		}
		return nil
	})
}

// Must returns t and panics if err is not nil; it is for package variables: tool.Must(tool.New(...)).
func Must(t *Tool, err error) *Tool {
	if err != nil {
		panic(err)
	}
	return t
}

// build makes a tool with the schema of In; finish gives it its run function.
func build[In any](name, description string, opts []Option, finish func(*Tool) error) (*Tool, error) {
	if !validName.MatchString(name) {
		return nil, fmt.Errorf("tool name %q must be 1 to 64 letters, digits, underscores and hyphens", name)
	}
	if strings.TrimSpace(description) == "" {
		return nil, fmt.Errorf("tool %s: the description is empty; the model chooses by it", name)
	}
	t := &Tool{
		name: name, description: description,
		config: config{policy: DefaultPolicy, maxOutput: defaultMaxOutput, logger: slog.New(slog.DiscardHandler)},
	}
	for _, opt := range opts {
		if err := opt(&t.config); err != nil {
			return nil, fmt.Errorf("tool %s: %w", name, err)
		}
	}
	if err := t.setSchema(reflect.TypeFor[In]()); err != nil {
		return nil, fmt.Errorf("tool %s: %w", name, err)
	}
	if err := finish(t); err != nil {
		return nil, fmt.Errorf("tool %s: %w", name, err)
	}
	return t, nil
}

// Name returns the name by which the model calls the tool.
func (t *Tool) Name() string { return t.name }

// Description returns what the model is told the tool is for.
func (t *Tool) Description() string { return t.description }

// Schema returns the JSON Schema of the arguments, properties in the order of the struct's fields. The caller may keep and
// change it.
func (t *Tool) Schema() json.RawMessage { return bytes.Clone(t.schema) }

// Parameters returns the JSON Schema of the arguments as a map that the caller may keep and change.
func (t *Tool) Parameters() map[string]any {
	var params map[string]any
	if err := json.Unmarshal(t.schema, &params); err != nil {
		panic(err) // the schema is our own encoding of an object
	}
	return params
}

// Outcome is how a call ended.
type Outcome struct {
	Output string // what the model is given; empty when the call ends the run
	Err    error  // the failure, nil on success; with Abort false the model is told of it in Output
	Abort  bool   // whether the run must end with Err
}

// Call runs the tool on the model's arguments, a JSON object. It accepts what models and agent libraries make of one: code
// fences, text around it, a lone "__arg1" that holds it as text or object, an empty text for no arguments.
//
// The text it returns is for the model: the function's result, or what went wrong in the shape
// {"error":{"code","message"}}, cut at the bound of [WithMaxOutput]. An error ends the run: it wraps the cause of a finished
// context, or the failure that the tool's [Policy] would not hand to the model.
func (t *Tool) Call(ctx context.Context, input string) (string, error) {
	out := t.Do(ctx, input)
	if out.Abort {
		return "", out.Err
	}
	return out.Output, nil
}

// Do is [Tool.Call] for who wants to know whether the model was told of a result or of a failure.
func (t *Tool) Do(ctx context.Context, input string) Outcome {
	var done func(Outcome)
	if t.hook != nil {
		ctx, done = t.hook(ctx, t.name, input)
	}
	out := t.call(ctx, input)
	if t.guard != nil {
		out = t.guard.check(ctx, t, out)
	}
	if done != nil {
		done(out)
	}
	return out
}

func (t *Tool) call(ctx context.Context, input string) Outcome {
	if ctx.Err() != nil {
		return t.abort(context.Cause(ctx))
	}
	args, err := t.arguments(input)
	if err == nil {
		var output string
		if output, err = t.safeRun(ctx, args); err == nil {
			return Outcome{Output: cut(output, t.maxOutput)}
		}
	}
	if ctx.Err() != nil {
		if cause := context.Cause(ctx); !errors.Is(err, cause) {
			err = fmt.Errorf("%w: %w", cause, err)
		}
		return t.abort(err)
	}
	observation, abort := t.policy(err)
	if abort {
		return t.abort(err)
	}
	return Outcome{Output: cut(observation, t.maxOutput), Err: err}
}

func (t *Tool) abort(err error) Outcome {
	return Outcome{Err: fmt.Errorf("tool %s: %w", t.name, err), Abort: true}
}

// safeRun turns a panic into a PanicError. The stack goes to the logger only: errors travel where stacks should not.
func (t *Tool) safeRun(ctx context.Context, args json.RawMessage) (output string, err error) {
	defer func() {
		if v := recover(); v != nil {
			t.logger.ErrorContext(ctx, "tool panicked",
				"tool", t.name, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
			output, err = "", &PanicError{Value: v}
		}
	}()
	return t.run(ctx, args)
}

// encode makes the result of a function into text.
func encode(out any) (string, error) {
	if text, ok := out.(string); ok {
		return strings.ToValidUTF8(text, "\uFFFD"), nil
	}
	text, err := marshal(out)
	if err != nil { // the function has acted: the model must not be invited to do it again
		return "", fmt.Errorf("%w: its result is not JSON: %w", errDefect, err)
	}
	return text, nil
}

// marshal encodes v in one line, with <, > and & as they are.
func marshal(v any) (string, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return "", err
	}
	return strings.TrimSuffix(buf.String(), "\n"), nil
}

// cut bounds text to limit bytes, at the end of a character, and says so.
func cut(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	end := limit
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return fmt.Sprintf("%s\n[cut: the first %d of %d bytes]", text[:end], end, len(text))
}
