package constraint_test

import (
	"bytes"
	"encoding/json"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/constraint"
)

func parse(t testing.TB, raw string) *url.URL {
	t.Helper()
	u, err := url.Parse(raw)
	require.NoError(t, err)
	return u
}

func decode(t testing.TB, text string) any {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader([]byte(text)))
	dec.UseNumber()
	var v any
	require.NoError(t, dec.Decode(&v))
	return v
}

func TestCheck(t *testing.T) {
	t.Parallel()
	const slack = "https://slack.com/api/chat.postMessage"
	is := func(path string, op stack.ConstraintOp, value any) stack.Constraint {
		return stack.Constraint{Path: path, Op: op, Value: value}
	}
	tests := []struct {
		name   string
		c      stack.Constraint
		method string // POST when empty
		url    string // slack when empty
		header map[string]string
		body   string // JSON
		form   url.Values
		text   string
		holds  bool
	}{
		{name: "method in another case", c: is("method", stack.OpEq, "post"), method: "Post", holds: true},
		{name: "method differs", c: is("method", stack.OpEq, "GET")},
		{name: "method prefix in another case", c: is("method", stack.OpStartsWith, "p"), holds: true},

		{name: "path", c: is("url.pathname", stack.OpEq, "/api/chat.postMessage"), holds: true},
		{name: "path with a trailing slash", c: is("url.pathname", stack.OpEq, "/api/x"),
			url: "https://h/api/x/", holds: true},
		{name: "trailing slash in the value", c: is("url.pathname", stack.OpEq, "/api/x/"),
			url: "https://h/api/x", holds: true},
		{name: "root", c: is("url.pathname", stack.OpEq, "/"), url: "https://h", holds: true},
		{name: "root with a slash", c: is("url.pathname", stack.OpEq, "/"), url: "https://h/", holds: true},
		{name: "encoded letter is the letter", c: is("url.pathname", stack.OpEq, "/api/chat"),
			url: "https://h/api/%63hat", holds: true},
		{name: "encoded letter does not slip past", c: is("url.pathname", stack.OpNotEq, "/api/chat"),
			url: "https://h/api/%63hat"},
		{name: "dot segments do not slip past", c: is("url.pathname", stack.OpNotEq, "/admin"),
			url: "https://h/api/../admin"},
		{name: "encoded dot segments do not slip past", c: is("url.pathname", stack.OpStartsWith, "/api/"),
			url: "https://h/api/%2e%2E/admin"},
		{name: "dot segments behind an encoded slash", c: is("url.pathname", stack.OpStartsWith, "/api/"),
			url: "https://h/api/x%2f..%2f..%2fadmin"},
		{name: "encoded slash is not taken for a slash only", c: is("url.pathname", stack.OpEq, "/api/chat"),
			url: "https://h/api%2Fchat"},
		{name: "both readings of an encoded slash in a list", c: is("url.pathname", stack.OpIn, []any{"/p/a%2Fb", "/p/a/b"}),
			url: "https://h/p/a%2Fb", holds: true},
		{name: "double slash does not slip past", c: is("url.pathname", stack.OpNotEq, "/admin"), url: "https://h//admin"},
		{name: "encoded percent stays one", c: is("url.pathname", stack.OpEq, "/a%2563"),
			url: "https://h/a%2563", holds: true},
		{name: "value with an encoded space", c: is("url.pathname", stack.OpNotEq, "/a%20b"), url: "https://h/a b"},
		{name: "question mark in the value is a part of the path", c: is("url.pathname", stack.OpEq, "/a?b"),
			url: "https://h/a"},
		{name: "dots above the root", c: is("url.pathname", stack.OpEq, "/a"), url: "https://h/../../a", holds: true},
		{name: "path prefix", c: is("url.pathname", stack.OpStartsWith, "/repos/acme/"),
			url: "https://h/repos/acme/site", holds: true},
		{name: "path pattern", c: is("url.pathname", stack.OpMatches, `^/repos/acme/[\w-]+/issues$`),
			url: "https://h/repos/acme/my-site/issues", holds: true},

		{name: "host in another case", c: is("url.host", stack.OpEq, "Slack.com"), url: "https://SLACK.com/x", holds: true},
		{name: "host with a trailing dot", c: is("url.host", stack.OpNotEq, "slack.com"), url: "https://slack.com./x"},
		{name: "own port", c: is("url.host", stack.OpEq, "slack.com"), url: "https://slack.com:443/x", holds: true},
		{name: "own port in the value", c: is("url.host", stack.OpNotEq, "slack.com:80"), url: "http://slack.com/x"},
		{name: "other port", c: is("url.host", stack.OpEq, "slack.com:8443"), url: "https://slack.com:8443/x", holds: true},
		{name: "other port is another host", c: is("url.host", stack.OpEq, "slack.com"), url: "https://slack.com:8443/x"},
		{name: "look-alike host is missing", c: is("url.host", stack.OpNotEq, "slack.com"), url: "https://ⓢlack.com/x"},
		{name: "IPv6 host", c: is("url.host", stack.OpEq, "[2001:DB8::1]:8080"),
			url: "http://[2001:db8::1]:8080/", holds: true},
		{name: "origin", c: is("url.origin", stack.OpEq, "https://Slack.com:443"), holds: true},
		{name: "origin with another scheme", c: is("url.origin", stack.OpEq, "https://slack.com"), url: "http://slack.com/"},
		{name: "origin with a port", c: is("url.origin", stack.OpEq, "http://h:81"), url: "http://h:81/", holds: true},

		{name: "header", c: is("headers.x-team", stack.OpEq, "a"), header: map[string]string{"X-Team": "a"}, holds: true},
		{name: "header path in another case", c: is("headers.X-TEAM", stack.OpEq, "a"),
			header: map[string]string{"x-team": "a"}, holds: true},
		{name: "header in two spellings", c: is("headers.x-team", stack.OpNotEq, "b"),
			header: map[string]string{"X-Team": "a", "x-team": "b"}},
		{name: "header missing", c: is("headers.x-team", stack.OpNotEq, "b")},

		{name: "query", c: is("query.channel", stack.OpEq, "a b"), url: "https://h/?channel=a+b", holds: true},
		{name: "query key with dots", c: is("query.filter.name", stack.OpEq, "x"),
			url: "https://h/?filter.name=x", holds: true},
		{name: "encoded query key", c: is("query.channel", stack.OpNotEq, "x"), url: "https://h/?%63hannel=x"},
		{name: "one of a repeated key differs", c: is("query.channel", stack.OpEq, "a"),
			url: "https://h/?channel=a&channel=b"},
		{name: "all of a repeated key are equal", c: is("query.channel", stack.OpEq, "a"),
			url: "https://h/?channel=a&channel=a", holds: true},
		{name: "query missing", c: is("query.channel", stack.OpNotIn, []any{"x"}), url: "https://h/?other=a"},
		{name: "query that cannot be parsed", c: is("query.a", stack.OpEq, "1"), url: "https://h/?a=1&b=2;a=3"},
		{name: "number is not text", c: is("query.n", stack.OpEq, 1), url: "https://h/?n=1"},

		{name: "body field", c: is("body.channel", stack.OpIn, []any{"#support", "#billing"}),
			body: `{"channel":"#billing"}`, holds: true},
		{name: "list of a Go type", c: is("body.channel", stack.OpIn, []string{"#support"}),
			body: `{"channel":"#support"}`, holds: true},
		{name: "body field not in the list", c: is("body.channel", stack.OpIn, []any{"#support"}),
			body: `{"channel":"#random"}`},
		{name: "body field in the forbidden list", c: is("body.channel", stack.OpNotIn, []any{"#random"}),
			body: `{"channel":"#random"}`},
		{name: "nested through an array", c: is("body.to.1.name", stack.OpEq, "b"),
			body: `{"to":[{"name":"a"},{"name":"b"}]}`, holds: true},
		{name: "array at the top", c: is("body.0", stack.OpEq, "a"), body: `["a"]`, holds: true},
		{name: "index out of range", c: is("body.to.2", stack.OpNotEq, "x"), body: `{"to":["a"]}`},
		{name: "index written oddly", c: is("body.to.00", stack.OpEq, "a"), body: `{"to":["a"]}`},
		{name: "negative index", c: is("body.to.-1", stack.OpNotEq, "x"), body: `{"to":["a"]}`},
		{name: "below a scalar", c: is("body.a.b", stack.OpNotEq, "x"), body: `{"a":"b"}`},
		{name: "missing fails not_eq", c: is("body.b", stack.OpNotEq, "x"), body: `{"a":1}`},
		{name: "missing fails not_in", c: is("body.b", stack.OpNotIn, []any{"x"}), body: `{"a":1}`},
		{name: "null is there", c: is("body.a", stack.OpEq, nil), body: `{"a":null}`, holds: true},
		{name: "no body", c: is("body.a", stack.OpNotEq, "x")},
		{name: "body that is text", c: is("body.a", stack.OpNotEq, "x"), text: "a=b"},

		{name: "form field", c: is("body.channel", stack.OpEq, "#a"), form: url.Values{"channel": {"#a"}}, holds: true},
		{name: "one of a repeated form field", c: is("body.channel", stack.OpNotEq, "#b"),
			form: url.Values{"channel": {"#a", "#b"}}},
		{name: "form field with dots", c: is("body.a.b", stack.OpEq, "x"), form: url.Values{"a.b": {"x"}}, holds: true},

		{name: "number in another notation", c: is("body.n", stack.OpEq, json.Number("1")),
			body: `{"n":10e-1}`, holds: true},
		{name: "number as a Go float", c: is("body.n", stack.OpEq, 1.5), body: `{"n":1.50}`, holds: true},
		{name: "exact beyond 2^53", c: is("body.n", stack.OpEq, json.Number("9007199254740992")),
			body: `{"n":9007199254740993}`},
		{name: "int64 beyond 2^53", c: is("body.n", stack.OpEq, int64(9007199254740993)),
			body: `{"n":9007199254740993}`, holds: true},
		{name: "negative zero", c: is("body.n", stack.OpEq, 0), body: `{"n":-0.0e5}`, holds: true},
		{name: "sign matters", c: is("body.n", stack.OpEq, 5), body: `{"n":-5}`},
		{name: "huge exponent", c: is("body.n", stack.OpNotEq, 5), body: `{"n":5e999999999}`, holds: true},
		{name: "exponent beyond any integer", c: is("body.n", stack.OpNotEq, 5),
			body: `{"n":5e99999999999999999999}`, holds: true},
		{name: "number and text differ", c: is("body.n", stack.OpEq, "1"), body: `{"n":1}`},
		{name: "true and text differ", c: is("body.n", stack.OpEq, "true"), body: `{"n":true}`},
		{name: "booleans", c: is("body.n", stack.OpEq, true), body: `{"n":true}`, holds: true},
		{name: "arrays", c: is("body.n", stack.OpEq, []any{1, "a"}), body: `{"n":[1.0,"a"]}`, holds: true},
		{name: "arrays of other order", c: is("body.n", stack.OpEq, []any{1, 2}), body: `{"n":[2,1]}`},
		{name: "objects", c: is("body.n", stack.OpEq, map[string]any{"a": 1, "b": nil}),
			body: `{"n":{"b":null,"a":1}}`, holds: true},
		{name: "object with one key more", c: is("body.n", stack.OpEq, map[string]any{"a": 1}), body: `{"n":{"a":1,"b":2}}`},

		{name: "pattern is not anchored", c: is("body.t", stack.OpMatches, "b+"), body: `{"t":"abbc"}`, holds: true},
		{name: "anchored pattern", c: is("body.t", stack.OpMatches, "^b+$"), body: `{"t":"abbc"}`},
		{name: "pattern on a number", c: is("body.t", stack.OpMatches, "1"), body: `{"t":1}`},
		{name: "prefix on a number", c: is("body.t", stack.OpStartsWith, ""), body: `{"t":1}`},
		{name: "prefix", c: is("body.t", stack.OpStartsWith, "C0"), body: `{"t":"C012"}`, holds: true},
		{name: "prefix in another case", c: is("body.t", stack.OpStartsWith, "c0"), body: `{"t":"C012"}`},

		{name: "unknown operator never holds", c: is("method", "gt", "A")},
		{name: "unknown path never holds", c: is("url.path", stack.OpNotEq, "A")},
		{name: "broken pattern never holds", c: is("method", stack.OpMatches, "(")},
		{name: "pattern that is no text never holds", c: is("method", stack.OpMatches, 1)},
		{name: "prefix that is no text never holds", c: is("method", stack.OpStartsWith, 1)},
		{name: "list that is none never holds", c: is("method", stack.OpNotIn, "GET")},
		{name: "value without a JSON form never holds", c: is("method", stack.OpNotEq, func() {})},
		{name: "empty list", c: is("method", stack.OpIn, []any{})},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := constraint.Request{Method: "POST", URL: parse(t, slack), Headers: tt.header}
			if tt.method != "" {
				r.Method = tt.method
			}
			if tt.url != "" {
				r.URL = parse(t, tt.url)
			}
			switch {
			case tt.body != "":
				r.Body = decode(t, tt.body)
			case tt.form != nil:
				r.Body = tt.form
			case tt.text != "":
				r.Body = tt.text
			}
			v := constraint.Check([]stack.Constraint{tt.c}, r)
			assert.Equal(t, tt.holds, v == nil, "%v", v)
		})
	}
}

func TestCheckIsTheAndOfAll(t *testing.T) {
	t.Parallel()
	r := constraint.Request{Method: "POST", URL: parse(t, "https://slack.com/api/chat.postMessage"),
		Body: map[string]any{"channel": "#random"}}
	first := stack.Constraint{Path: "method", Op: stack.OpEq, Value: "POST"}
	second := stack.Constraint{Path: "body.channel", Op: stack.OpEq, Value: "#support"}
	assert.Nil(t, constraint.Check(nil, r))
	v := constraint.Check([]stack.Constraint{first, second}, r)
	require.NotNil(t, v)
	assert.Equal(t, second, v.Constraint)
	assert.Equal(t, "#random", v.Got)
	assert.False(t, v.Missing)
	v = constraint.Check([]stack.Constraint{first, second}, constraint.Request{})
	require.NotNil(t, v, "an empty request has nothing that could be allowed")
}

func TestViolationExplainsItself(t *testing.T) {
	t.Parallel()
	many := make([]any, 12)
	for i := range many {
		many[i] = i
	}
	r := constraint.Request{Method: "POST", URL: parse(t, "https://slack.com/x?api_key=k-123456"),
		Headers: map[string]string{"Authorization": "Bearer s3cret"},
		Body:    map[string]any{"channel": "#random", "n": json.Number("5"), "long": strings.Repeat("é", 500), "author": "me"}}
	tests := []struct {
		name string
		c    stack.Constraint
		want string
	}{
		{"in", stack.Constraint{Path: "body.channel", Op: stack.OpIn, Value: []string{"#support", "#billing"}},
			`body.channel is "#random"; allowed: one of "#support", "#billing"`},
		{"eq", stack.Constraint{Path: "body.n", Op: stack.OpEq, Value: 6}, `body.n is 5; allowed: 6`},
		{"not_eq", stack.Constraint{Path: "body.n", Op: stack.OpNotEq, Value: 5}, `body.n is 5; allowed: anything but 5`},
		{"not_in", stack.Constraint{Path: "method", Op: stack.OpNotIn, Value: []any{"POST"}},
			`method is "POST"; allowed: anything but "POST"`},
		{"matches", stack.Constraint{Path: "body.channel", Op: stack.OpMatches, Value: "^C"},
			`body.channel is "#random"; allowed: text that matches "^C"`},
		{"starts_with", stack.Constraint{Path: "url.host", Op: stack.OpStartsWith, Value: "api."},
			`url.host is "slack.com"; allowed: text that starts with "api."`},
		{"missing", stack.Constraint{Path: "body.user", Op: stack.OpEq, Value: "U1"}, `body.user is missing; allowed: "U1"`},
		{"empty list", stack.Constraint{Path: "method", Op: stack.OpIn, Value: []any{}},
			`method is "POST"; allowed: one of nothing, since the list is empty`},
		{"long list", stack.Constraint{Path: "body.channel", Op: stack.OpIn, Value: many},
			`body.channel is "#random"; allowed: one of 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, … (12 in all)`},
		{"long value", stack.Constraint{Path: "body.long", Op: stack.OpEq, Value: "x"},
			`body.long is "` + strings.Repeat("é", 60) + `…"; allowed: "x"`},
		{"unknown operator", stack.Constraint{Path: "method", Op: "gt", Value: 1},
			`method is "POST"; allowed: nothing, since the operator "gt" is unknown`},
		{"credential header", stack.Constraint{Path: "headers.authorization", Op: stack.OpEq, Value: "x"},
			`headers.authorization is "[REDACTED]"; allowed: "x"`},
		{"credential query", stack.Constraint{Path: "query.api_key", Op: stack.OpEq, Value: "x"},
			`query.api_key is "[REDACTED]"; allowed: "x"`},
		{"author is no credential", stack.Constraint{Path: "body.author", Op: stack.OpEq, Value: "x"},
			`body.author is "me"; allowed: "x"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			assert.EqualError(t, constraint.Check([]stack.Constraint{tt.c}, r), tt.want)
		})
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	ok := []stack.Constraint{
		{Path: "method", Op: stack.OpIn, Value: []string{"GET", "POST"}},
		{Path: "url.pathname", Op: stack.OpStartsWith, Value: "/api/"},
		{Path: "url.host", Op: stack.OpEq, Value: "slack.com"},
		{Path: "url.origin", Op: stack.OpNotEq, Value: "https://x"},
		{Path: "headers.X-Team", Op: stack.OpMatches, Value: strings.Repeat("é", 256)},
		{Path: "query.a.b", Op: stack.OpNotIn, Value: []any{}},
		{Path: "body.a.0.b", Op: stack.OpEq, Value: nil},
		{Path: "body.a", Op: stack.OpIn, Value: []any{1, true, nil, map[string]any{"a": 1}}},
	}
	require.NoError(t, constraint.Validate(ok))
	require.NoError(t, constraint.Validate(nil))
	require.NoError(t, constraint.Validate(make32(32)))
	assert.EqualError(t, constraint.Validate(make32(33)), "constraints has 33 entries; it must have at most 32")

	const paths = "method, url.pathname, url.host, url.origin, headers.<name>, query.<key> or body.<dotted.path>"
	tests := []struct {
		name string
		c    stack.Constraint
		want string
	}{
		{"empty path", stack.Constraint{Op: stack.OpEq}, `path is ""; it must be ` + paths},
		{"unknown path", stack.Constraint{Path: "url.path", Op: stack.OpEq}, `path is "url.path"; it must be ` + paths},
		{"body alone", stack.Constraint{Path: "body", Op: stack.OpEq}, `path is "body"; it must be ` + paths},
		{"empty part", stack.Constraint{Path: "body.a..b", Op: stack.OpEq}, `path is "body.a..b"; it must be ` + paths},
		{"trailing dot", stack.Constraint{Path: "body.a.", Op: stack.OpEq}, `path is "body.a."; it must be ` + paths},
		{"header without a name", stack.Constraint{Path: "headers.", Op: stack.OpEq},
			`path is "headers."; it must be ` + paths},
		{"header with a space", stack.Constraint{Path: "headers.a b", Op: stack.OpEq},
			`path is "headers.a b"; it must be ` + paths},
		{"query without a key", stack.Constraint{Path: "query", Op: stack.OpEq}, `path is "query"; it must be ` + paths},
		{"method with a tail", stack.Constraint{Path: "method.x", Op: stack.OpEq},
			`path is "method.x"; it must be ` + paths},
		{"unknown operator", stack.Constraint{Path: "body.a", Op: "gt"},
			`op is "gt"; it must be eq, not_eq, in, not_in, matches or starts_with`},
		{"in without an array", stack.Constraint{Path: "body.a", Op: stack.OpIn, Value: "x"},
			`value is "x"; it must be an array for in`},
		{"not_in without an array", stack.Constraint{Path: "body.a", Op: stack.OpNotIn},
			`value is null; it must be an array for not_in`},
		{"starts_with without a string", stack.Constraint{Path: "body.a", Op: stack.OpStartsWith, Value: 1},
			`value is 1; it must be a string for starts_with`},
		{"matches without a string", stack.Constraint{Path: "body.a", Op: stack.OpMatches, Value: []any{}},
			`value is []; it must be a string for matches`},
		{"pattern too long", stack.Constraint{Path: "body.a", Op: stack.OpMatches, Value: strings.Repeat("a", 257)},
			`value is 257 characters long; it must be an RE2 pattern of at most 256`},
		{"pattern that RE2 has not", stack.Constraint{Path: "body.a", Op: stack.OpMatches, Value: `(?=a)`},
			"value is \"(?=a)\"; it must be an RE2 pattern: error parsing regexp: invalid or unsupported Perl syntax: `(?=`"},
		{"number where all is text", stack.Constraint{Path: "query.n", Op: stack.OpEq, Value: 1},
			`value is 1; it must be a string, since query.n is text`},
		{"number in a list where all is text", stack.Constraint{Path: "method", Op: stack.OpIn, Value: []any{"GET", 1}},
			`value[1] is 1; it must be a string, since method is text`},
		{"no JSON value", stack.Constraint{Path: "body.a", Op: stack.OpEq, Value: func() {}},
			`value is a func(); it must be a JSON value`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			assert.EqualError(t, constraint.Validate([]stack.Constraint{ok[0], tt.c}), "constraints[1]."+tt.want)
		})
	}
}

func make32(n int) []stack.Constraint {
	cs := make([]stack.Constraint, n)
	for i := range cs {
		cs[i] = stack.Constraint{Path: "method", Op: stack.OpEq, Value: "GET"}
	}
	return cs
}

// FuzzCheck holds two things against any input: nothing panics, and a constraint and its opposite never both hold.
func FuzzCheck(f *testing.F) {
	f.Add("body.a.0", "x", "https://h/a/../b?c=d&c=e", `{"a":["x"]}`, "X-A", "v")
	f.Add("url.pathname", "/b", "https://h/%2e%2e/b", `null`, "", "")
	f.Add("query.c", "d", "https://h:443/?c=%zz", `5e99999999999999`, "é", "\x00")
	f.Add("url.host", "H.", "http://H.:80", `"text"`, "x-a", "v")
	f.Fuzz(func(t *testing.T, path, value, raw, body, header, headerValue string) {
		u, err := url.Parse(raw)
		if err != nil {
			t.Skip()
		}
		r := constraint.Request{Method: "post", URL: u, Headers: map[string]string{header: headerValue}}
		dec := json.NewDecoder(strings.NewReader(body))
		dec.UseNumber()
		if dec.Decode(&r.Body) != nil {
			r.Body = body
		}
		for _, pair := range [][2]stack.Constraint{
			{{Path: path, Op: stack.OpEq, Value: value}, {Path: path, Op: stack.OpNotEq, Value: value}},
			{{Path: path, Op: stack.OpIn, Value: []any{value, r.Body}}, {Path: path, Op: stack.OpNotIn, Value: []any{value, r.Body}}},
			{{Path: path, Op: stack.OpMatches, Value: value}, {Path: path, Op: "none", Value: value}},
		} {
			_ = constraint.Validate(pair[:])
			a, b := constraint.Check(pair[:1], r), constraint.Check(pair[1:], r)
			if a == nil && b == nil {
				t.Fatalf("%v and %v both hold", pair[0], pair[1])
			}
			for _, v := range []*constraint.Violation{a, b} {
				if v != nil && !strings.Contains(v.Error(), "; allowed: ") {
					t.Fatalf("the message %q does not say what is allowed", v.Error())
				}
			}
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	cs := []stack.Constraint{
		{Path: "method", Op: stack.OpEq, Value: "POST"},
		{Path: "url.host", Op: stack.OpEq, Value: "slack.com"},
		{Path: "url.pathname", Op: stack.OpEq, Value: "/api/chat.postMessage"},
		{Path: "body.channel", Op: stack.OpIn, Value: []any{"#support", "#billing"}},
		{Path: "body.text", Op: stack.OpMatches, Value: `^[\w\s]+$`},
	}
	r := constraint.Request{Method: "POST", URL: parse(b, "https://slack.com/api/chat.postMessage"),
		Body: map[string]any{"channel": "#billing", "text": "on it"}}
	b.ReportAllocs()
	for b.Loop() {
		if v := constraint.Check(cs, r); v != nil {
			b.Fatal(v)
		}
	}
}
