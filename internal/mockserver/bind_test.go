package mockserver

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

func TestStrictInput(t *testing.T) {
	t.Parallel()
	type request struct{ method, target, body string }
	start := func(body string) request { return request{"POST", "/v1/missions/start", body} }
	connect := func(body string) request { return request{"POST", "/v1/services/connect", body} }
	register := func(body string) request { return request{"POST", "/v1/agents/register", body} }
	open := func(rest string) request {
		return request{"POST", "/v1/missions", `{"intent_summary":"x",` + rest + `}`}
	}
	get := func(query string) request { return request{"GET", "/v1/missions?" + query, ""} }
	long := strings.Repeat("k", 900_000)
	tests := map[string]struct {
		request request
		field   string
		sent    any // nil where it is not looked at
	}{
		"unknown field": {register(`{"name":"a-1","nmae":"x"}`), "body.nmae", nil},
		"wrong case":    {register(`{"Name":"a-1"}`), "body.Name", nil},
		"nested unknown field": {start(`{"agent_id":"a","mission":{"intent_summary":"x","extra":1}}`),
			"body.mission.extra", nil},
		"nested wrong case": {start(`{"agent_id":"a","mission":{"Intent_summary":"x"}}`),
			"body.mission.Intent_summary", nil},
		"missing": {register(`{}`), "body.name", nil},
		"nested missing": {start(`{"agent_id":"a","mission":{}}`),
			"body.mission.intent_summary", nil},
		"no body":                {register(``), "body.name", nil},
		"null":                   {register(`{"name":null}`), "body.name", "null"},
		"null in a list":         {open(`"intent_services":[null]`), "body.intent_services[0]", "null"},
		"null in a map":          {open(`"max_actions_per_service":{"slack":null}`), "body.max_actions_per_service.slack", "null"},
		"null for all":           {register(`null`), "body", "null"},
		"a number for a string":  {register(`{"name":7}`), "body.name", "7"},
		"an object for a string": {register(`{"name":{"first":"a"}}`), "body.name", "an object"},
		"a string for a list":    {open(`"intent_services":"slack"`), "body.intent_services", "slack"},
		"an object for a list":   {open(`"intent_services":{}`), "body.intent_services", "an object"},
		"a list for an object":   {open(`"max_actions_per_service":[]`), "body.max_actions_per_service", "an array"},
		"a wrong element":        {open(`"intent_services":["a",7]`), "body.intent_services[1]", "7"},
		"a wrong value in a map": {open(`"max_actions_per_service":{"slack":"2"}`), "body.max_actions_per_service.slack",
			"2"},
		"a string for a boolean": {request{"POST", "/v1/proxy/operations/get", `{"operation_id":"x","include_response":"true"}`},
			"body.include_response", "true"},
		"a fraction":                {open(`"max_actions":1.5`), "body.max_actions", "1.5"},
		"an exponent":               {open(`"max_actions":1e3`), "body.max_actions", "1e3"},
		"a string for a number":     {open(`"max_actions":"2"`), "body.max_actions", "2"},
		"too great a number":        {open(`"max_actions":9223372036854775808`), "body.max_actions", "9223372036854775808"},
		"a duration as a string":    {open(`"expires_in_seconds":"900"`), "body.expires_in_seconds", "900"},
		"a fraction of a second":    {open(`"expires_in_seconds":0.5`), "body.expires_in_seconds", "0.5"},
		"too long a duration":       {open(`"expires_in_seconds":9223372037`), "body.expires_in_seconds", "9223372037"},
		"too long a time back":      {open(`"expires_in_seconds":-9223372037`), "body.expires_in_seconds", "-9223372037"},
		"a number that no float is": {open(`"baseline_profile":{"a":[1,1e400]}`), "body.baseline_profile.a[1]", "1e400"},
		"a secret that is none": {connect(`{"service_id":"slack","oauth_token":1234567,"scopes":["a"]}`),
			"body.oauth_token", "[REDACTED]"},
		"given twice":               {register(`{"name":"a-1","name":"a-2"}`), "body.name", "given twice"},
		"given twice, once escaped": {register(`{"name":"a-1","n\u0061me":"a-1"}`), "body.name", "given twice"},
		"twice in a free object":    {open(`"baseline_profile":{"a":{"b":1,"b":2}}`), "body.baseline_profile.a.b", "given twice"},
		"trailing data":             {register(`{"name":"a-1"} {}`), "body", nil},
		"trailing text":             {register(`{"name":"a-1"}x`), "body", nil},
		"trailing comma":            {register(`{"name":"a-1",}`), "body", nil},
		"not JSON":                  {register(`{name}`), "body", nil},
		"a form":                    {register(`name=a-1`), "body", nil},
		"a byte order mark":         {register("\ufeff" + `{"name":"a-1"}`), "body", nil},
		"NaN":                       {open(`"baseline_profile":{"a":NaN}`), "body", nil},
		"cut short":                 {register(`{"name":"a-`), "body", "cut short"},
		"cut short between":         {register(`{"name":"a-1"`), "body", "cut short"},
		"an array":                  {register(`[]`), "body", "an array"},
		"a string":                  {register(`"name"`), "body", "name"},
		"a bomb": {open(`"baseline_profile":{"a":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + `}`), "",
			"nested too deeply"},
		"a bomb of objects": {open(`"baseline_profile":` + strings.Repeat(`{"a":`, 1000) + "1" + strings.Repeat("}", 1000)), "",
			"nested too deeply"},
		"a long name":               {register(`{"` + long + `":1}`), "", nil},
		"wrong under a long name":   {open(`"max_actions_per_service":{"` + long + `":"a"}`), "", "a"},
		"a long value":              {open(`"intent_services":"` + long + `"`), "body.intent_services", nil},
		"unknown parameter":         {get("stauts=live"), "query.stauts", nil},
		"a parameter in wrong case": {get("Page=1"), "query.Page", nil},
		"unknown where none is":     {request{"POST", "/v1/agents/register?dry_run=1", `{"name":"a-1"}`}, "query.dry_run", nil},
		"repeated parameter":        {get("page=1&page=1"), "query.page", "given 2 times"},
		"no number":                 {get("page=one"), "query.page", "one"},
		"empty number":              {get("page="), "query.page", ""},
		"too great a page":          {get("page=9223372036854775808"), "query.page", "9223372036854775808"},
		"semicolons":                {get("page=1;limit=2"), "query", "page=1;limit=2"},
		"a bad escape":              {get("page=%zz"), "query", "page=%zz"},
		"no time":                   {request{"GET", "/v1/usage?since=yesterday", ""}, "query.since", "yesterday"},
		"no such day":               {request{"GET", "/v1/usage?since=2026-02-30", ""}, "query.since", "2026-02-30"},
		"a time out of the calendar": {request{"GET", "/v1/usage?since=999999999999999999", ""}, "query.since",
			"999999999999999999"},
		"body where none is":      {request{"DELETE", "/v1/agents/agt_x", `{"a":1}`}, "body", nil},
		"a list where no body is": {request{"GET", "/v1/agents", `[]`}, "body", nil},
		"null where no body is":   {request{"GET", "/v1/agents", `null`}, "body", nil},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rec, answer := ask(t, New(Options{}), tc.request.method, tc.request.target, tc.request.body)
			assert.Equal(t, http.StatusBadRequest, rec.Code, answer)
			code, details := refusalOf(t, answer)
			assert.Equal(t, "INVALID_REQUEST", code)
			assert.Equal(t, "validation", details["check"])
			assert.Contains(t, details, "allowed")
			assert.NotContains(t, rec.Body.String(), "1234567")
			assert.NotContains(t, rec.Body.String(), "Go ", "no word of how it is made")
			assert.Less(t, rec.Body.Len(), 2000, "what is told of a foreign text is bounded")
			if tc.field != "" {
				assert.Equal(t, tc.field, details["field"])
			}
			if tc.sent != nil {
				assert.Equal(t, tc.sent, details["sent"])
			}
		})
	}
}

// A header that is given twice is refused as a parameter is.
func TestRepeatedHeader(t *testing.T) {
	t.Parallel()
	rec, answer := ask(t, New(Options{}), "POST", "/v1/proxy/operations/get", `{"operation_id":"x","include_response":true}`,
		func(r *http.Request) { r.Header["X-Passport-Token"] = []string{"secret-1", "secret-2"} })
	assert.Equal(t, http.StatusBadRequest, rec.Code)
	_, details := refusalOf(t, answer)
	assert.Equal(t, "header X-Passport-Token", details["field"])
	assert.NotContains(t, rec.Body.String(), "secret-")
}

func TestLenientWhereTheSDKsAre(t *testing.T) {
	t.Parallel()
	s := New(Options{})
	asJSON := func(r *http.Request) { r.Header.Set("Content-Type", "application/json") }
	for name, tc := range map[string]struct {
		method, target, body string
		status               int
	}{
		"the Python SDK sends a null reason": {"POST", "/v1/passports/revoke-all", `{"reason":null}`, 200},
		"and an empty body as JSON":          {"POST", "/v1/passports/revoke-all", "", 200},
		"and says that a read is JSON":       {"GET", "/v1/agents", "", 200},
		"white space is no body":             {"POST", "/v1/passports/revoke-all", " \n", 200},
		"{} is as good as no body":           {"DELETE", "/v1/agents/agt_x", "{}", 404},
		"an optional object may be null": {"POST", "/v1/missions/start",
			`{"agent_id":"a","mission":{"intent_summary":"x"},"passport":null}`, 404},
		"numbers of any size go through in raw JSON": {"POST", "/v1/proxy",
			`{"service":"s","method":"POST","url":"/","body":1e400}`, 401},
		"a question mark without a query":    {"GET", "/v1/agents?", "", 200},
		"a query may be escaped as it likes": {"GET", "/v1/missions?%70age=%31", "", 200},
		"a time may be epoch milliseconds":   {"GET", "/v1/usage?until=946684800000", "", 200},
		"or a day":                           {"GET", "/v1/usage?since=2000-01-01", "", 200},
		"or have a zone":                     {"GET", "/v1/usage?since=2000-01-01T00:00:00%2B02:00", "", 200},
		"a long duration is the rule's matter": {"POST", "/v1/missions",
			`{"intent_summary":"x","expires_in_seconds":9223372036}`, 400},
		"64 levels are enough for anybody, not fewer": {"POST", "/v1/proxy",
			`{"service":"s","method":"POST","url":"/","body":` + strings.Repeat("[", 62) + strings.Repeat("]", 62) + `}`, 401},
	} {
		rec, answer := ask(t, s, tc.method, tc.target, tc.body, asJSON)
		assert.Equal(t, tc.status, rec.Code, "%s: %v", name, answer)
	}
}

func TestBodiesAreBounded(t *testing.T) {
	t.Parallel()
	s := New(Options{})
	name := func(size int) string { return `{"name":"` + strings.Repeat("x", size-len(`{"name":""}`)) + `"}` }
	rec, answer := ask(t, s, "POST", "/v1/agents/register", name(1<<20))
	assert.Equal(t, http.StatusBadRequest, rec.Code, "the name is too long, the body is not")
	_, details := refusalOf(t, answer)
	assert.Equal(t, "body.name", details["field"])
	rec, answer = ask(t, s, "POST", "/v1/agents/register", name(1<<20+1))
	assert.Equal(t, http.StatusRequestEntityTooLarge, rec.Code)
	code, details := refusalOf(t, answer)
	assert.Equal(t, "PAYLOAD_TOO_LARGE", code)
	assert.Equal(t, map[string]any{"check": "body_size", "allowed": float64(1 << 20)}, details)
	for _, r := range s.routes {
		want := int64(maxBody)
		if r.pattern == "/v1/proxy" || r.pattern == "/v1/scan" {
			want = maxProxyBody
		}
		if strings.HasPrefix(r.pattern, "/v1/llm/") && r.method == http.MethodPost {
			want = maxLLMBody
		}
		if (strings.Contains(r.pattern, "/oauth/") || strings.HasPrefix(r.pattern, providersPath)) && r.method == http.MethodPost {
			want = maxClientBody
		}
		if !strings.Contains(r.pattern, "dropoffs") { // a payload has a bound of its own
			assert.Equal(t, want, r.maxBody, r.pattern)
		}
	}
}

func TestContentTypes(t *testing.T) {
	t.Parallel()
	s := New(Options{})
	for kind, want := range map[string]int{"application/json": 200, "APPLICATION/JSON": 200,
		"application/json; charset=utf-8": 200, "": 415, "text/plain": 415, "application/jsonx": 415,
		"application/x-www-form-urlencoded": 415, "application/": 415, ";": 415,
		"multipart/form-data; boundary=x": 415, "application/json; charset": 415} {
		rec, answer := ask(t, s, "POST", "/v1/passports/revoke-all", `{}`,
			func(r *http.Request) { r.Header.Set("Content-Type", kind) })
		assert.Equal(t, want, rec.Code, kind)
		if want == 200 {
			continue
		}
		code, details := refusalOf(t, answer)
		assert.Equal(t, "UNSUPPORTED_MEDIA_TYPE", code)
		assert.Equal(t, map[string]any{"check": "content_type", "sent": kind, "allowed": "application/json"}, details)
	}
}

type brokenBody struct{}

func (brokenBody) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestBodyThatEndsEarly(t *testing.T) {
	t.Parallel()
	rec, answer := ask(t, New(Options{}), "POST", "/v1/agents/register", `{`,
		func(r *http.Request) { r.Body = io.NopCloser(brokenBody{}) })
	assert.Equal(t, http.StatusBadRequest, rec.Code)
	_, details := refusalOf(t, answer)
	assert.Equal(t, "body", details["field"])
}

// sample makes a JSON value with every field that a type has.
func sample(t reflect.Type, depth int) any {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t {
	case durationType:
		return 60
	case timeType:
		return time.Unix(0, 0).UTC()
	case secretType:
		return "secret"
	case anyType, rawType:
		return map[string]any{"n": json.Number("12345678901234567890")}
	}
	switch t.Kind() {
	case reflect.Struct:
		object := map[string]any{}
		for name, f := range jsonFields(t).byName {
			if depth < 8 {
				object[name] = sample(f.typ, depth+1)
			}
		}
		return object
	case reflect.Map:
		return map[string]any{"key": sample(t.Elem(), depth+1)}
	case reflect.Slice:
		return []any{sample(t.Elem(), depth+1)}
	case reflect.Bool:
		return true
	case reflect.String:
		return "text"
	}
	return 7
}

// Every input of every route can be bound with all its fields: a type that bind does not know would panic at some request.
func TestEveryInputCanBeSent(t *testing.T) {
	t.Parallel()
	for _, r := range append(routes(), controlRoutes()...) {
		for i := range r.in.NumField() {
			field := r.in.Field(i)
			if _, ok := field.Tag.Lookup("body"); ok {
				body, err := json.Marshal(sample(field.Type, 0))
				require.NoError(t, err)
				into := reflect.New(field.Type)
				err = decodeStrict(body, into.Interface())
				assert.NoError(t, err, "%s %s: %s", r.method, r.pattern, body)
				continue
			}
			if tag := string(field.Tag); tag == `raw:""` || tag == `headers:""` {
				continue // taken as they are
			}
			for _, text := range []string{"", "7", "text", "true", "2026-01-02T03:04:05Z"} {
				err := setText("field", reflect.New(field.Type).Elem(), []string{text})
				if err != nil {
					assert.ErrorAs(t, err, new(*apiError), "%s %s", r.method, r.pattern)
				}
			}
		}
	}
}

// What the strict decoder says of a file names the file.
func TestDecodeStrictOfAFile(t *testing.T) {
	t.Parallel()
	var out struct {
		Name string `json:"name"`
		Age  int    `json:"age,omitempty"`
	}
	require.NoError(t, DecodeStrict("seed", []byte(`{"name":"x"}`), &out))
	for body, want := range map[string]string{
		`{"nam":"x"}`:             "unknown field seed.nam; known are age, name",
		`{"name":"x","age":"1"}`:  `seed.age is "1"; it must be an integer`,
		`{"name":"x"}{}`:          `seed is "followed by more data"; it must be one JSON object and nothing after it`,
		`{"age":1}`:               "seed.name is missing; it must be a string",
		`{"name":"x","age":1e99}`: `seed.age is "1e99"; it must be an integer`,
	} {
		require.EqualError(t, DecodeStrict("seed", []byte(body), &out), want)
	}
}

// Whatever the strict decoder takes, encoding/json takes, too, to the same value; what it does not take is the caller's
// mistake.
func FuzzDecodeStrict(f *testing.F) {
	types := []reflect.Type{reflect.TypeFor[proxyBody]()}
	for _, r := range routes() {
		for i := range r.in.NumField() {
			if _, ok := r.in.Field(i).Tag.Lookup("body"); !ok {
				continue
			}
			switch r.pattern {
			case "/v1/passports/issue", "/v1/missions/start", "/v1/passports/{passport_jti}/checkpoint",
				"/v1/services/custom", "/v1/dropoffs":
				types = append(types, r.in.Field(i).Type)
			}
		}
	}
	for _, typ := range types {
		body, err := json.Marshal(sample(typ, 0))
		require.NoError(f, err)
		f.Add(string(body))
	}
	require.Greater(f, len(types), 4)
	f.Add(`{"agent_id":"a","mission_ids":["m"],"ttl_seconds":-1e1,"intent":{"summary":"\ud800","services":["x"]}}`)
	f.Add(`{"agent_id":"a","agent_\u0069d":"b"}`)
	f.Add(`{"service":"a","method":"b","url":"c","body":1e999}`)
	f.Add(`{"a":1}{`)
	f.Add(`null`)
	f.Fuzz(func(t *testing.T, body string) {
		for _, typ := range types {
			strict := reflect.New(typ)
			if err := decodeStrict([]byte(body), strict.Interface()); err != nil {
				var refusal *apiError
				require.ErrorAs(t, err, &refusal)
				require.Equal(t, http.StatusBadRequest, refusal.status)
				continue
			}
			if strings.TrimSpace(body) == "" {
				continue
			}
			lenient := reflect.New(typ)
			require.NoError(t, json.Unmarshal([]byte(body), lenient.Interface()))
			require.Equal(t, lenient.Interface(), strict.Interface())
		}
	})
}

// Query strings and header values are foreign bytes, too.
func FuzzSetText(f *testing.F) {
	for _, text := range []string{"", "7", "-7", "true", "2026-01-02T03:04:05Z", "946684800000", "-99999999999999999", "\xff"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, into := range []any{new(string), new(int), new(*int), new(int64), new(bool), new(*bool), new(time.Time),
			new(stack.Secret)} {
			err := setText("field", reflect.ValueOf(into).Elem(), []string{text})
			var refusal *apiError
			if err != nil && !errors.As(err, &refusal) {
				t.Fatalf("%T: %v", into, err)
			}
			if at, ok := into.(*time.Time); ok && err == nil {
				_, err = at.MarshalJSON()
				require.NoError(t, err, "what is taken can be told")
			}
		}
	})
}

func BenchmarkDecodeStrict(b *testing.B) {
	list := strings.TrimSuffix(strings.Repeat(`"channel",`, 10_000), ",")
	for name, body := range map[string]string{
		"typical": `{"agent_id":"agt_1","mission_ids":["ms_1"],"ttl_seconds":900,` +
			`"intent":{"summary":"Triage","services":["slack"],"will_delegate":true}}`,
		"large": fmt.Sprintf(`{"agent_id":"agt_1","mission_ids":["ms_1"],"intent":{"summary":"Triage","services":[%s]}}`, list),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var p stack.PassportIssueParams
				require.NoError(b, decodeStrict([]byte(body), &p))
			}
		})
	}
}
