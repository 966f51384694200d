package tool_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/jsonschema-go/jsonschema"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack/tool"
)

type postIn struct {
	Channel string `json:"channel" jsonschema:"name of the channel, with its #"`
	Text    string `json:"text"`
	Thread  string `json:"thread,omitempty"`
	Limit   *int   `json:"limit,omitempty"`
}

// echo makes a tool that gives back its arguments.
func echo[In any](t *testing.T, opts ...tool.Option) *tool.Tool {
	t.Helper()
	made, err := tool.New("echo", "Give back the arguments.",
		func(_ context.Context, in In) (In, error) { return in, nil }, opts...)
	require.NoError(t, err)
	return made
}

// failing makes a tool without arguments that fails with err.
func failing(t *testing.T, err error, opts ...tool.Option) *tool.Tool {
	t.Helper()
	made, madeErr := tool.New("fail", "Fail.",
		func(context.Context, struct{}) (string, error) { return "", err }, opts...)
	require.NoError(t, madeErr)
	return made
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	type node struct {
		Next *node `json:"next"`
	}
	type tagged struct {
		Field string `json:"field" jsonschema:"enum=a"`
	}
	ok := func(context.Context, struct{}) (string, error) { return "", nil }
	made := func(_ *tool.Tool, err error) error { return err }
	tests := map[string]struct {
		err  error
		want string
	}{
		"empty name":      {made(tool.New("", "d", ok)), `tool name "" must be`},
		"name with space": {made(tool.New("a b", "d", ok)), `tool name "a b" must be`},
		"long name":       {made(tool.New(strings.Repeat("a", 65), "d", ok)), "1 to 64 letters"},
		"no description":  {made(tool.New("a", " ", ok)), "the description is empty"},
		"no function":     {made(tool.New[struct{}, string]("a", "d", nil)), "the function is nil"},
		"arguments string": {
			made(tool.New("a", "d", func(context.Context, string) (string, error) { return "", nil })),
			"the arguments are a string; they must be a struct or a map",
		},
		"arguments pointer": {
			made(tool.New("a", "d", func(context.Context, *postIn) (string, error) { return "", nil })),
			"must be a struct or a map",
		},
		"arguments time": {
			made(tool.New("a", "d", func(context.Context, time.Time) (string, error) { return "", nil })),
			"is not that of an object",
		},
		"map with int keys": {
			made(tool.New("a", "d", func(context.Context, map[int]string) (string, error) { return "", nil })),
			"unsupported map key type int",
		},
		"recursive type": {
			made(tool.New("a", "d", func(context.Context, node) (string, error) { return "", nil })),
			"cycle detected",
		},
		"field of func": {
			made(tool.New("a", "d", func(context.Context, struct{ F func() }) (string, error) { return "", nil })),
			"unsupported by jsonschema",
		},
		"tag like an option": {
			made(tool.New("a", "d", func(context.Context, tagged) (string, error) { return "", nil })),
			"must not begin with 'WORD='",
		},
		"schema hook nil":   {made(tool.New("a", "d", ok, tool.WithSchema(nil))), "WithSchema: the function is nil"},
		"policy nil":        {made(tool.New("a", "d", ok, tool.WithPolicy(nil))), "WithPolicy: the policy is nil"},
		"logger nil":        {made(tool.New("a", "d", ok, tool.WithLogger(nil))), "WithLogger: the logger is nil"},
		"hook nil":          {made(tool.New("a", "d", ok, tool.WithHook(nil))), "WithHook: the hook is nil"},
		"output of 0 bytes": {made(tool.New("a", "d", ok, tool.WithMaxOutput(0))), "WithMaxOutput: 0 is not a positive number"},
		"schema not of an object": {
			made(tool.New("a", "d", ok, tool.WithSchema(func(s *jsonschema.Schema) { s.Type = "string" }))),
			"is not that of an object",
		},
		"schema with a bad pattern": {
			made(tool.New("a", "d", ok, tool.WithSchema(func(s *jsonschema.Schema) {
				s.Properties["x"] = &jsonschema.Schema{Type: "string", Pattern: "("}
			}))),
			"is not valid",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Error(t, tt.err)
			assert.Contains(t, tt.err.Error(), tt.want)
		})
	}
}

func TestMust(t *testing.T) {
	t.Parallel()
	assert.Panics(t, func() { tool.Must(nil, errors.New("x")) })
	made := echo[postIn](t)
	assert.Same(t, made, tool.Must(made, nil))
}

func TestCallReadsArguments(t *testing.T) {
	t.Parallel()
	want := `{"channel":"#a","text":"hi"}`
	tests := map[string]string{
		"plain":                      `{"channel":"#a","text":"hi"}`,
		"white space":                "\n\t {\"channel\":\"#a\",\"text\":\"hi\"} \n",
		"code fence":                 "```json\n{\"channel\":\"#a\",\"text\":\"hi\"}\n```",
		"made-up observation":        "{\"channel\":\"#a\",\"text\":\"hi\"}\nObservation: it worked {\"ok\":true}",
		"text before":                `Input: {"channel":"#a","text":"hi"}`,
		"__arg1 object":              `{"__arg1":{"channel":"#a","text":"hi"}}`,
		"__arg1 string":              `{"__arg1":"{\"channel\":\"#a\",\"text\":\"hi\"}"}`,
		"__arg1 string with fence":   "{\"__arg1\":\"```json\\n{\\\"channel\\\":\\\"#a\\\",\\\"text\\\":\\\"hi\\\"}\\n```\"}",
		"whole as a string":          `"{\"channel\":\"#a\",\"text\":\"hi\"}"`,
		"null for what is left out":  `{"channel":"#a","text":"hi","thread":null,"limit":null}`,
		"the later of equal names":   `{"channel":"#b","channel":"#a","text":"hi"}`,
		"first of two objects":       `{"channel":"#a","text":"hi"} {"channel":"#b","text":"ho"}`,
		"string that opens no quote": `"quoted" {"channel":"#a","text":"hi"}`,
	}
	made := echo[postIn](t)
	for name, input := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, err := made.Call(t.Context(), input)
			require.NoError(t, err)
			assert.Equal(t, want, out)
		})
	}
}

func TestCallWithoutArguments(t *testing.T) {
	t.Parallel()
	made := echo[struct{}](t)
	for _, input := range []string{"", " \n", "{}", "null", `""`, `{"__arg1":""}`, `{"__arg1":null}`, `{"__arg1":{}}`} {
		t.Run(input, func(t *testing.T) {
			t.Parallel()
			out, err := made.Call(t.Context(), input)
			require.NoError(t, err)
			assert.Equal(t, "{}", out)
		})
	}
}

func TestCallKeepsADeclaredArg1(t *testing.T) {
	t.Parallel()
	made := echo[struct {
		Arg string `json:"__arg1"`
	}](t)
	out, err := made.Call(t.Context(), `{"__arg1":"{}"}`)
	require.NoError(t, err)
	assert.Equal(t, `{"__arg1":"{}"}`, out)
}

func TestCallKeepsNumbers(t *testing.T) {
	t.Parallel()
	made := echo[struct {
		ID  int64           `json:"id"`
		Raw json.RawMessage `json:"raw"`
	}](t)
	out, err := made.Call(t.Context(), `{"id":9007199254740993,"raw":{"a":9007199254740993}}`)
	require.NoError(t, err)
	assert.Equal(t, `{"id":9007199254740993,"raw":{"a":9007199254740993}}`, out)
}

func TestCallRefusesArguments(t *testing.T) {
	t.Parallel()
	type in struct {
		Channel string    `json:"channel"`
		Mood    string    `json:"mood,omitempty"`
		Small   int8      `json:"small,omitempty"`
		Count   int       `json:"count,omitempty"`
		At      time.Time `json:"at,omitzero"`
		To      []struct {
			ID int `json:"id"`
		} `json:"to,omitempty"`
		Labels map[string]string `json:"labels,omitempty"`
	}
	const about = "; the arguments are channel (string, required), mood (string, one of [good bad]), small (integer), " +
		"count (integer), at (string), to (array), labels (object)"
	ran := false
	made, err := tool.New("t", "d", func(context.Context, in) (string, error) { ran = true; return "", nil },
		tool.WithSchema(func(s *jsonschema.Schema) { s.Properties["mood"].Enum = []any{"good", "bad"} }))
	require.NoError(t, err)
	t.Cleanup(func() { assert.False(t, ran, "the function ran with refused arguments") })

	tests := map[string]struct{ input, want string }{
		"missing":         {`{}`, `required: missing properties: ["channel"]` + about},
		"unknown":         {`{"channel":"a","chanel":"b"}`, `unexpected additional properties ["chanel"]` + about},
		"other case":      {`{"channel":"a","Mood":"good"}`, `unexpected additional properties ["Mood"]` + about},
		"wrong type":      {`{"channel":5}`, `channel: type: 5 has type "integer", want "string"` + about},
		"required null":   {`{"channel":null}`, `channel: type: null has type "null", want "string"` + about},
		"not in the list": {`{"channel":"a","mood":"so-so"}`, `mood: enum: so-so does not equal any of: [good bad]` + about},
		"out of range":    {`{"channel":"a","small":500}`, `small: maximum: 500/1 is greater than 127.000000` + about},
		"in a list":       {`{"channel":"a","to":[{"id":"x"}]}`, `to[].id: type: x has type "string", want "integer"` + about},
		"in a map":        {`{"channel":"a","labels":{"k":1}}`, `labels.*: type: 1 has type "integer", want "string"` + about},
		"not for Go":      {`{"channel":"a","count":5.0}`, `count: number 5.0 does not fit into int` + about},
		"too large": {
			`{"channel":"a","count":99999999999999999999}`, `count: number 99999999999999999999 does not fit into int` + about,
		},
		"not a time": {
			`{"channel":"a","at":"soon"}`,
			`at: parsing time "soon" as "2006-01-02T15:04:05Z07:00": cannot parse "soon" as "2006"` + about,
		},
		"plain text":     {`hello`, `the arguments are not a JSON object` + about},
		"a number":       {`{"__arg1":5}`, `the arguments are not a JSON object` + about},
		"half an object": {`{"channel":"a`, `the arguments are not valid JSON: unexpected EOF` + about},
		"a list":         {`[{"channel":"a"},{"channel":"b"}]`, `the arguments are a list; they must be one JSON object` + about},
		"a fenced list":  {"```\n[{\"channel\":\"a\"}]\n```", `the arguments are a list; they must be one JSON object` + about},
		"__arg1 beside others": {
			`{"__arg1":{"channel":"a"},"channel":"b"}`, `unexpected additional properties ["__arg1"]` + about,
		},
		"wrapped again and again": {
			`{"__arg1":{"__arg1":{"__arg1":{"__arg1":{"channel":"a"}}}}}`, `the arguments are wrapped more than 4 times` + about,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, err := made.Call(t.Context(), tt.input)
			require.NoError(t, err)
			code, message := observed(t, out)
			assert.Equal(t, "INVALID_ARGUMENTS", code)
			assert.Equal(t, tt.want, message)
		})
	}
}

// observed reads what a model is told of a failure.
func observed(t *testing.T, out string) (code, message string) {
	t.Helper()
	var o struct {
		Error struct{ Code, Message string }
	}
	require.NoError(t, json.Unmarshal([]byte(out), &o), out)
	return o.Error.Code, o.Error.Message
}

func TestRefusalIsBounded(t *testing.T) {
	t.Parallel()
	out, err := echo[postIn](t).Call(t.Context(), fmt.Sprintf(`{"channel":[%q],"text":"x"}`, strings.Repeat("x", 1<<20)))
	require.NoError(t, err)
	assert.Less(t, len(out), 1500)
	assert.Contains(t, out, "the arguments are channel (string, required)")
}

func TestCallResults(t *testing.T) {
	t.Parallel()
	type named string
	tests := map[string]struct {
		out  any
		want string
	}{
		"string":       {`as "it" is <b>&`, `as "it" is <b>&`},
		"broken UTF-8": {"a\xffb", "a\uFFFDb"},
		"named string": {named("x"), `"x"`},
		"struct":       {struct{ A string }{"<b>&"}, `{"A":"<b>&"}`},
		"raw JSON":     {json.RawMessage(`{"html": "<b>"}`), `{"html":"<b>"}`},
		"nothing":      {nil, `null`},
		"list":         {[]int{1, 2}, `[1,2]`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			made, err := tool.New("t", "d", func(context.Context, struct{}) (any, error) { return tt.out, nil })
			require.NoError(t, err)
			out, err := made.Call(t.Context(), "")
			require.NoError(t, err)
			assert.Equal(t, tt.want, out)
		})
	}
}

func TestResultThatIsNotJSONAborts(t *testing.T) {
	t.Parallel()
	made, err := tool.New("t", "d", func(context.Context, struct{}) (float64, error) { return math.NaN(), nil })
	require.NoError(t, err)
	out, err := made.Call(t.Context(), "")
	assert.Empty(t, out)
	assert.EqualError(t, err, "tool t: the tool is defective: its result is not JSON: json: unsupported value: NaN")
}

func TestOutputIsCut(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		out  string
		opts []tool.Option
		want string
	}{
		"default": {
			strings.Repeat("x", 40000), nil, strings.Repeat("x", 32768) + "\n[cut: the first 32768 of 40000 bytes]",
		},
		"just fits":          {"12345", []tool.Option{tool.WithMaxOutput(5)}, "12345"},
		"at a character":     {"aäöü", []tool.Option{tool.WithMaxOutput(4)}, "aä\n[cut: the first 3 of 7 bytes]"},
		"first is too large": {"€", []tool.Option{tool.WithMaxOutput(1)}, "\n[cut: the first 0 of 3 bytes]"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			made, err := tool.New("t", "d", func(context.Context, struct{}) (string, error) { return tt.out, nil }, tt.opts...)
			require.NoError(t, err)
			out, err := made.Call(t.Context(), "")
			require.NoError(t, err)
			assert.Equal(t, tt.want, out)
		})
	}
}

func TestPanicAborts(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	cause := errors.New("cause")
	made, err := tool.New("boom", "d", func(context.Context, struct{}) (string, error) { panic(cause) },
		tool.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
	require.NoError(t, err)

	out, err := made.Call(t.Context(), "")
	assert.Empty(t, out)
	require.EqualError(t, err, "tool boom: panic: cause")
	var panicked *tool.PanicError
	require.ErrorAs(t, err, &panicked)
	assert.Equal(t, cause, panicked.Value)
	require.ErrorIs(t, err, cause)
	assert.Contains(t, log.String(), "tool=boom")
	assert.Contains(t, log.String(), "TestPanicAborts")

	silent, err := tool.New("boom", "d", func(_ context.Context, in map[string]int) (int, error) { return 1 / len(in), nil })
	require.NoError(t, err)
	_, err = silent.Call(t.Context(), "")
	assert.ErrorContains(t, err, "tool boom: panic: runtime error: integer divide by zero")
}

func TestFinishedContext(t *testing.T) {
	t.Parallel()
	cause := errors.New("the Mission has ended")

	t.Run("before the call", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cause)
		_, err := echo[struct{}](t).Call(ctx, "")
		require.ErrorIs(t, err, cause)
		assert.EqualError(t, err, "tool echo: the Mission has ended")
	})
	t.Run("inside the call, which fails of it", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancelCause(t.Context())
		made, err := tool.New("t", "d", func(ctx context.Context, _ struct{}) (string, error) {
			cancel(cause)
			return "", fmt.Errorf("send: %w", ctx.Err())
		})
		require.NoError(t, err)
		_, err = made.Call(ctx, "")
		require.ErrorIs(t, err, cause)
		require.ErrorIs(t, err, context.Canceled)
		assert.EqualError(t, err, "tool t: the Mission has ended: send: context canceled")
	})
	t.Run("inside the call, which fails with the cause", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancelCause(t.Context())
		made, err := tool.New("t", "d", func(context.Context, struct{}) (string, error) {
			cancel(cause)
			return "", cause
		})
		require.NoError(t, err)
		_, err = made.Call(ctx, "")
		assert.EqualError(t, err, "tool t: the Mission has ended")
	})
	t.Run("inside the call, which succeeds", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancelCause(t.Context())
		made, err := tool.New("t", "d", func(context.Context, struct{}) (string, error) {
			cancel(cause)
			return "done", nil
		})
		require.NoError(t, err)
		out, err := made.Call(ctx, "")
		require.NoError(t, err)
		assert.Equal(t, "done", out)
	})
	t.Run("a deadline of the function alone", func(t *testing.T) {
		t.Parallel()
		out, err := failing(t, context.DeadlineExceeded).Call(t.Context(), "")
		require.NoError(t, err)
		code, _ := observed(t, out)
		assert.Equal(t, "FAILED", code)
	})
}

func TestHook(t *testing.T) {
	t.Parallel()
	var seen []string
	type key struct{}
	hook := func(ctx context.Context, name, input string) (context.Context, func(tool.Outcome)) {
		seen = append(seen, name+" "+input)
		return context.WithValue(ctx, key{}, "of the hook"), func(o tool.Outcome) { seen = append(seen, fmt.Sprintf("%q %v %t", o.Output, o.Err, o.Abort)) }
	}
	for _, made := range []*tool.Tool{
		echo[struct{}](t, tool.WithHook(hook)),
		failing(t, errors.New("no"), tool.WithHook(hook)),
		failing(t, errors.New("no"), tool.WithHook(hook),
			tool.WithPolicy(func(error) (string, bool) { return "", true })),
		echo[struct{}](t, tool.WithHook(func(ctx context.Context, _, _ string) (context.Context, func(tool.Outcome)) { return ctx, nil })),
		tool.Must(tool.New("value", "Return what the context holds.",
			func(ctx context.Context, _ struct{}) (any, error) { return ctx.Value(key{}), nil }, tool.WithHook(hook))),
	} {
		_, _ = made.Call(t.Context(), "{}")
	}
	assert.Equal(t, []string{
		`echo {}`, `"{}" <nil> false`,
		`fail {}`, `"{\"error\":{\"code\":\"FAILED\",\"message\":\"no\"}}" no false`,
		`fail {}`, `"" tool fail: no true`,
		`value {}`, `"of the hook" <nil> false`,
	}, seen)
}

func TestConcurrentCalls(t *testing.T) {
	t.Parallel()
	made := echo[postIn](t)
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			input := fmt.Sprintf(`{"channel":"#%d","text":"x"}`, i)
			out, err := made.Call(t.Context(), input)
			assert.NoError(t, err)
			assert.Equal(t, input, out)
			made.Parameters()["type"] = i
		})
	}
	wg.Wait()
}

func TestImports(t *testing.T) {
	t.Parallel()
	deps, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	require.NoError(t, err)
	assert.Contains(t, string(deps), "github.com/google/jsonschema-go/jsonschema\n")
	assert.NotContains(t, string(deps), "langchaingo")
	assert.NotContains(t, string(deps), "mockserver")
}

func BenchmarkCall(b *testing.B) {
	made, err := tool.New("echo", "Give back the arguments.",
		func(_ context.Context, in postIn) (postIn, error) { return in, nil })
	require.NoError(b, err)
	const input = `{"channel":"#support","text":"We are looking into it.","thread":"1712345678.000100"}`
	b.ReportAllocs()
	for b.Loop() {
		if _, err := made.Call(b.Context(), input); err != nil {
			b.Fatal(err)
		}
	}
}
