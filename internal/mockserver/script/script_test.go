package script_test

import (
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack/internal/mockserver/script"
)

// Time is the one limit that no test waits for by chance: only an endless script meets it.
var (
	small = script.Limits{Time: time.Minute, Memory: 8 << 20, Output: 1000}
	brief = script.Limits{Time: 50 * time.Millisecond, Memory: 8 << 20, Output: 1000}
)

func TestRun(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ source, input, prev, want string }{
		"a value":          {`return 1 + 1`, ``, ``, `2`},
		"the input":        {`return {sum: $INPUT.a + $INPUT.b}`, `{"a":1,"b":2}`, ``, `{"sum":3}`},
		"what came before": {`return $PREV.map(x => x * 2)`, ``, `[1,2]`, `[2,4]`},
		"null":             {`return $PREV`, ``, ``, `null`},
		"a comment last":   {"return 'x' // and out", ``, ``, `"x"`},
		"text that breaks out of strings": {`return $INPUT`, `"\"); throw 1; (\"\u2028'"`, ``,
			`"\"); throw 1; (\"\u2028'"`},
		"statements":        {"let n = 0\nfor (const x of $INPUT) { n += x }\nreturn n", `[1,2,3]`, ``, `6`},
		"a JSON of its own": {`JSON.stringify = null; return 1`, ``, ``, `1`},
		"nothing but the language": {`return ["require","fetch","console","std","os","process","setTimeout","Go"].filter(n => n in globalThis)`,
			``, ``, `[]`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := script.Run(tc.source, json.RawMessage(tc.input), json.RawMessage(tc.prev), small)
			require.NoError(t, err)
			assert.JSONEq(t, tc.want, string(got))
		})
	}
}

func TestRunFails(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		source string
		reason script.Reason
		text   string
	}{
		"no JavaScript":          {`return (`, script.Syntax, "SyntaxError"},
		"out of the function":    {`return 1 })(); (function () {`, script.Syntax, ""},
		"an exception":           {`throw new TypeError("no such thing")`, script.Thrown, "TypeError: no such thing"},
		"a long exception":       {`throw new Error("x".repeat(10000))`, script.Thrown, "…"},
		"endless":                {`while (true) {}`, script.Timeout, "50ms"},
		"endless, and caught":    {`while (true) { try { while (true) {} } catch {} }`, script.Timeout, ""},
		"a slow expression":      {`return /(a+)+$/.test("a".repeat(60) + "b")`, script.Timeout, ""},
		"one large allocation":   {`return "x".repeat(1e9).length`, script.Memory, "8388608"},
		"many allocations":       {`const a = []; while (true) a.push("x".repeat(100000) + a.length)`, script.Memory, ""},
		"endless recursion":      {`const f = () => f() + 1; return f()`, script.Thrown, "overflow"},
		"no value":               {`1 + 1`, script.Output, "must return"},
		"a function":             {`return () => 1`, script.Output, "must return"},
		"a cycle":                {`const a = {}; a.a = a; return a`, script.Thrown, "circular"},
		"too much":               {`return "x".repeat(2000)`, script.Output, "2002"},
		"a promise has no value": {`return Promise.reject(new Error("x")).length`, script.Output, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			limits := small
			if tc.reason == script.Timeout {
				limits = brief
			}
			got, err := script.Run(tc.source, nil, nil, limits)
			var failure *script.Error
			require.ErrorAs(t, err, &failure, string(got))
			assert.Equal(t, tc.reason, failure.Reason, failure.Message)
			assert.Contains(t, failure.Message, tc.text)
			assert.Less(t, len(failure.Message), 600)
		})
	}
}

// What is deep ends in an error, and not in the end of the process: a goroutine's stack is no script's to use up.
func TestDepth(t *testing.T) {
	t.Parallel()
	nested := func(open, middle, end string) string {
		return strings.Repeat(open, 20_000) + middle + strings.Repeat(end, 20_000)
	}
	for name, source := range map[string]string{
		"calls":        `const f = () => f() + 1; return f()`,
		"constructors": `class A { constructor() { new A } }; new A`,
		"generators":   `function* g() { yield* g() }; return [...g()]`,
		"getters":      `const o = {get a() { return this.a }}; return o.a`,
		"toString":     `const o = {toString() { return "" + o }}; return "" + o`,
		"callbacks":    `return [1, 2].sort(function c() { return [1, 2].sort(c) })`,
		"proxies":      `let p = new Proxy({}, {}); for (let i = 0; i < 20000; i++) p = new Proxy(p, {}); return p.x`,
		"parentheses":  "return " + nested("(", "1", ")"),
		"arrays":       "return " + nested("[", "", "]"),
		"objects":      "return " + nested("{a:", "1", "}"),
		"operators":    "return " + nested("!", "1", ""),
		"blocks":       nested("{", "", "}"),
		"eval":         `return eval("(".repeat(20000) + "1" + ")".repeat(20000))`,
		"expressions":  `return new RegExp("(?:".repeat(20000) + "a" + ")*".repeat(20000)).test("aab")`,
		"JSON":         `return JSON.parse("[".repeat(20000) + "]".repeat(20000))`,
		"results":      `let a = []; for (let i = 0; i < 20000; i++) a = [a]; return a`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := script.Run(source, nil, nil, small)
			require.ErrorContains(t, err, "stack overflow")
		})
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	require.NoError(t, script.Check(`return $INPUT`))
	require.NoError(t, script.Check(`while (true) {}`), "it is not run")
	var failure *script.Error
	require.ErrorAs(t, script.Check(`return {`), &failure)
	assert.Equal(t, script.Syntax, failure.Reason)
}

func TestRunsDoNotMeet(t *testing.T) {
	t.Parallel()
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			got, err := script.Run(`globalThis.n = (globalThis.n ?? 0) + 1; return n`, nil, nil, small)
			assert.NoError(t, err)
			assert.Equal(t, "1", string(got))
		})
	}
	all.Wait()
}

func FuzzRun(f *testing.F) {
	for _, source := range []string{`return $INPUT`, `return (`, "//", strings.Repeat("(", 100), "return `${$PREV}`", "\x00", "})("} {
		f.Add(source, `{"a":[1]}`)
	}
	limits := script.Limits{Time: 50 * time.Millisecond, Memory: 4 << 20, Output: 1000}
	f.Fuzz(func(t *testing.T, source, input string) {
		if !json.Valid([]byte(input)) {
			return
		}
		got, err := script.Run(source, json.RawMessage(input), nil, limits)
		if err == nil && (!json.Valid(got) || len(got) > limits.Output) {
			t.Fatalf("%q is no result", got)
		}
	})
}

func BenchmarkRun(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := script.Run(`return {sum: $INPUT.a + 1}`, json.RawMessage(`{"a":1}`), nil, script.DefaultLimits); err != nil {
			b.Fatal(err)
		}
	}
}
