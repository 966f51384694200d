package mockserver

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

// reference is one place of a route's input where an id, or a token that stands for one, is named.
type reference struct {
	place string   // path, query, header or body
	at    []string // the name, or in a body the way to it
}

func (r reference) name() string { return strings.TrimSuffix(r.at[len(r.at)-1], "[]") }

func (r reference) String() string { return r.place + " " + strings.Join(r.at, ".") }

// refersTo reports whether inputs of that name refer to an object.
func refersTo(name string) bool {
	for _, end := range []string{"_id", "_ids", "_jti", "_token", "_ref", "-Id"} {
		if strings.HasSuffix(name, end) {
			return true
		}
	}
	return slices.Contains([]string{"jti", "token", "from_agent", "to_agent", "X-Passport-Token", "ref"}, name)
}

// selfMade are the names that end like an id's but refer to nothing that an operator has.
var selfMade = []string{
	"external_customer_id", // the caller's own name of a customer
	"operation_id",         // the caller's own, and looked for among the caller's own
	"session_ref",          // of a verification: opaque, and looked for among the caller's own
	"oauth_token",          // a credential to keep
	"external_ref",         // the caller's own name of a principal
	"X-STACK-Authority-Request-Id",
}

// references are all of a route.
func (r *route) references() (list []reference) {
	for i := range r.in.NumField() {
		field := r.in.Field(i)
		for _, place := range []string{"path", "query", "header"} {
			if name, ok := field.Tag.Lookup(place); ok && refersTo(name) && (place == "path" || !slices.Contains(selfMade, name)) {
				list = append(list, reference{place, []string{name}})
			}
		}
		if _, ok := field.Tag.Lookup("body"); ok {
			t := field.Type
			if t == reflect.TypeFor[startBody]() { // which reads it itself
				t = reflect.TypeFor[stack.MissionStartParams]()
			}
			list = append(list, referencesIn(t, nil)...)
		}
	}
	return list
}

// referencesIn finds those of a body, and of what it holds.
func referencesIn(t reflect.Type, at []string) (list []reference) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || t == timeType || t == secretType || len(at) > 4 {
		return nil
	}
	for name, f := range jsonFields(t).byName {
		way, of := append(slices.Clone(at), name), f.typ
		if of.Kind() == reflect.Slice {
			way[len(at)] += "[]"
		}
		for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice {
			of = of.Elem()
		}
		if refersTo(name) && !slices.Contains(selfMade, name) && (of.Kind() == reflect.String || of == secretType) {
			list = append(list, reference{"body", way})
			continue
		}
		list = append(list, referencesIn(f.typ, way)...)
	}
	slices.SortFunc(list, func(a, b reference) int { return strings.Compare(a.String(), b.String()) })
	return list
}

// id is what the operator has of the kind that a route's reference names.
func (h *holdings) id(r *route, name string) string {
	best, id := -1, h.ids[name]
	for key, value := range h.ids {
		prefix, of, ok := strings.Cut(key, ":")
		if ok && of == name && strings.HasPrefix(r.pattern, prefix) && len(prefix) > best {
			best, id = len(prefix), value
		}
	}
	return id
}

const (
	sweepKey    = `"public_key":{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`
	sweepMarks  = `AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA`
	sweepEnrol  = `{"name":"bot","idempotency_key":"key-1","challenge_id":"",` + sweepKey + `,"proof":"` + sweepMarks + `"}`
	sweepModel  = `{"model":"m","max_tokens":10,"messages":[{"role":"user","content":"x"}]}`
	sweepIntent = `{"intent":{"intent_type":"proxy","action":"POST","target":"https://slack.com/x","parameters":{"service":"slack"}}}`
	sweepFleet  = `{"name":"Fleet","access":[{"service_connection_id":"","scopes":["chat:write"]}]}`
	sweepIssue  = `{"agent_id":"","mission_ids":[""],"intent":{"summary":"x","services":["slack"]}}`
	sweepNeed   = `{"layer":"humanity","requires_claim":"verified_human","minimum_assurance":"low"}`
	sweepSecret = `{"signing_secret":"0123456789abcdef"}`
	sweepCode   = `{"code":"123456"}`
	sweepHook   = `{"agent_id":"","provider":"generic"}`
)

// sweepBodies are the bodies of the routes whose example in the description is well formed but would be refused for what it
// says before anything is looked for. Where an id belongs, anything stands.
var sweepBodies = map[string]string{
	"POST /v1/agents/{agent_id}/enroll":                    `{"challenge_id":"",` + sweepKey + `,"signed_challenge":"` + sweepMarks + `"}`,
	"POST /v1/fleets/{policy_id}/enroll":                   sweepEnrol,
	"POST /v1/fleets/{policy_id}/workload/enroll":          sweepEnrol,
	"POST /v1/fleets":                                      sweepFleet,
	"PUT /v1/fleets/{policy_id}":                           sweepFleet,
	"POST /v1/passports/issue":                             sweepIssue,
	"POST /v1/partner/tenants/{tenant_id}/passports/issue": `{"agent_id":"","mission_ids":[""]}`,
	"POST /v1/missions/start": `{"agent_id":"","mission":{"intent_summary":"x"},` +
		`"passport":{"intent":{"summary":"x","services":["slack"]}}}`,
	"POST /v1/proxy":                                                                            `{"service":"slack","method":"POST","url":"https://slack.com/x","body":{}}`,
	"POST /v1/proxy/operations/get":                                                             `{"operation_id":"operation-operation-operation","include_response":true}`,
	"POST /v1/llm/anthropic/messages":                                                           sweepModel,
	"POST /v1/llm/openai/chat/completions":                                                      sweepModel,
	"POST /v1/llm/openrouter/chat/completions":                                                  sweepModel,
	"POST /v1/intents/simulate":                                                                 sweepIntent,
	"POST /v1/intents/submit":                                                                   sweepIntent,
	"POST /v1/operator/inbound-webhooks":                                                        sweepHook,
	"POST /v1/partner/tenants/{tenant_id}/inbound-webhooks":                                     sweepHook,
	"POST /v1/services/connect":                                                                 `{"service_id":"slack","scopes":["chat:write"],"oauth_token":"xoxb-new"}`,
	"POST /v1/skills":                                                                           `{"name":"other","description":"x","agent_id":""}`,
	"POST /v1/services/{service_id}/requirements":                                               sweepNeed,
	"PUT /v1/services/{service_id}/requirements":                                                `{"requirement":` + sweepNeed + `}`,
	"POST /v1/notifications/channels/{channel_id}/verify":                                       sweepCode,
	"POST /v1/notifications/destinations/{destination_id}/verify":                               sweepCode,
	"POST /v1/authority/receivers/{receiver_id}/keys":                                           `{"public_key":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`,
	"PUT /v1/operator/inbound-webhooks/{webhook_id}/provider-signing-secret":                    sweepSecret,
	"PUT /v1/partner/tenants/{tenant_id}/inbound-webhooks/{webhook_id}/provider-signing-secret": sweepSecret,
	"POST /v1/services/grant":                                                                   `{"agent_id":"","service_connection_id":"","scopes":["chat:write"]}`,
	"POST /v1/passports/delegate": `{"parent_passport_token":"","child_agent_id":"","scopes":[{"service_connection_id":"",` +
		`"scopes":["chat:write"]}]}`,
}

// sweepRequest makes a request of a route: good, and its references the caller's own, but one, which is another's.
func sweepRequest(t *testing.T, r *route, bodies map[string]any, own *holdings, foreign *reference, value string) *http.Request {
	t.Helper()
	target, query, header := r.pattern, url.Values{}, http.Header{}
	for _, m := range bracedName.FindAllStringSubmatch(r.pattern, -1) {
		with := own.id(r, m[1])
		if foreign != nil && foreign.place == "path" && foreign.name() == m[1] {
			with = value
		}
		if with == "" {
			with = map[string]string{"detector_key": "prompt_injection", "slug": "slug"}[m[1]]
		}
		target = strings.Replace(target, m[0], url.PathEscape(with), 1)
	}
	for i := range r.in.NumField() {
		tag := r.in.Field(i).Tag
		if tag.Get("header") == "X-Passport-Token" && !strings.Contains(r.pattern, "{approval_id}") { // agents decide nothing
			header.Set("X-Passport-Token", own.id(r, "X-Passport-Token"))
		}
		if tag.Get("header") == "If-Match" {
			header.Set("If-Match", "1")
		}
	}
	if r.idempotent || r.keyRequired {
		header.Set(idempotencyHeader, newID("idem_"))
	}
	body := bodies[r.method+" "+r.pattern]
	if text, ok := sweepBodies[r.method+" "+r.pattern]; ok {
		require.NoError(t, json.Unmarshal([]byte(text), &body))
	}
	body = filledIn(r, own, "", body)
	if foreign != nil {
		switch foreign.place {
		case "query":
			query.Set(foreign.name(), value)
		case "header":
			header.Set(foreign.name(), value)
		case "body":
			body = withAt(body, foreign.at, value)
		}
	}
	text := ""
	if body != nil {
		data, err := json.Marshal(body)
		require.NoError(t, err)
		text = string(data)
	}
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req := httptest.NewRequestWithContext(t.Context(), r.method, target, strings.NewReader(text))
	req.Header = header
	if text != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	return req
}

// filledIn puts the caller's own ids where a body names some.
func filledIn(r *route, own *holdings, name string, v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for field, of := range v {
			out[field] = filledIn(r, own, field, of)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, of := range v {
			out[i] = filledIn(r, own, name, of)
		}
		return out
	case string:
		if id := own.id(r, name); id != "" && refersTo(name) && (v == "" || strings.HasPrefix(v, strings.TrimSuffix(name, "s"))) {
			return id
		}
	}
	return v
}

// withAt sets one value of a body, and makes what it is in.
func withAt(body any, at []string, value string) any {
	if len(at) == 0 {
		return value
	}
	object, ok := body.(map[string]any)
	if !ok {
		object = map[string]any{}
		if at[0] == "service_connection_id" {
			object["scopes"] = []any{"chat:write"}
		}
	}
	if at[0] == "fleet_policy_id" && len(object) > 0 { // a Mission of a fleet is started once for each key
		object["idempotency_key"] = "key-1"
	}
	name, isList := strings.CutSuffix(at[0], "[]")
	if !isList {
		object[name] = withAt(object[name], at[1:], value)
		return object
	}
	list, _ := object[name].([]any)
	if len(list) == 0 {
		list = []any{nil}
	}
	list[0] = withAt(list[0], at[1:], value)
	object[name] = list
	return object
}

func exampleBodies(t *testing.T) map[string]any {
	t.Helper()
	doc, bodies := describeRoutes(routes()), map[string]any{}
	for _, r := range routes() {
		op := doc.Paths[r.pattern][strings.ToLower(r.method)]
		if op.RequestBody == nil {
			continue
		}
		if media, ok := op.RequestBody.Content[jsonMedia]; ok {
			bodies[r.method+" "+r.pattern] = media.Example
		}
	}
	return bodies
}

// inMarket are the places where another operator's id is good: what it names is in the marketplace, for all to see.
var inMarket = map[string]bool{
	"GET /v1/skills/{skill_id} path skill_id": true,
	"GET /v1/skills": true, "GET /v1/skill-requests": true,
	"POST /v1/skills/{skill_id}/check-trust path skill_id":        true,
	"POST /v1/skills/{skill_id}/invoke path skill_id":             true,
	"GET /v1/skill-requests/{request_id} path request_id":         true,
	"GET /v1/skill-requests/{request_id}/matches path request_id": true,
	"GET /v1/skill-requests/{request_id}/suggest path request_id": true,
}

// compared are the places where an id is never looked for, only held against what the rest of the input stands for, such as
// the caller's passport or what its agent was granted: any other is answered with 400, there or not.
var compared = map[string]bool{
	"POST /v1/passports/delegate body scopes[].service_connection_id":                            true,
	"POST /v1/passports/issue body scopes[].service_connection_id":                               true,
	"POST /v1/missions body requested_access[].service_connection_id":                            true, // of fleets only
	"POST /v1/missions/start body mission.requested_access[].service_connection_id":              true, // the same
	"POST /v1/missions/start body mission.agent_id":                                              true,
	"POST /v1/missions/start body passport.scopes[].service_connection_id":                       true,
	"POST /v1/partner/tenants/{tenant_id}/passports/issue body services[].service_connection_id": true,
	"POST /v1/passports/issue body services[].service_connection_id":                             true,
	"POST /v1/dropoffs/{dropoff_id}/deposit body mission_id":                                     true,
	"POST /v1/dropoffs/{dropoff_id}/deposit body passport_jti":                                   true,
	"POST /v1/intents/simulate body intent.agent_id":                                             true,
	"POST /v1/intents/simulate body intent.mission_ref":                                          true, "POST /v1/intents/submit body intent.mission_ref": true,
	"POST /v1/intents/submit body intent.agent_id": true,
}

// byLink are the public routes that take an id: who has the link may follow it, and some things are for all to see.
var byLink = map[string]string{
	"GET /v1/operators/{operator_id}/jwks.json":           "public keys",
	"POST /v1/passports/verify":                           "who has a passport may read it",
	"GET /team/invitations/{token}":                       "the link of an invitation",
	"POST /team/invitations/{token}":                      "the same",
	"GET /billing/pay/{session_id}":                       "the link of a payment",
	"POST /billing/pay/{session_id}":                      "the same",
	"GET /identity/verify/{session_ref}":                  "the link of a verification",
	"POST /identity/verify/{session_ref}":                 "the same",
	"GET /authority/requests/{request_id}":                "the link of a decision",
	"POST /authority/requests/{request_id}/approve":       "the same",
	"POST /authority/requests/{request_id}/reject":        "the same",
	"POST /authority/receivers/challenges/{challenge_id}": "the answer is signed",
	"GET /partner/consent/{token}":                        "the link of a consent",
	"POST /partner/consent/{token}/approve":               "the same",
	"POST /partner/consent/{token}/deny":                  "the same",
}

// Whatever any kind of caller names of another operator's, wherever an input can name it: it is told 401, 403 or 404, is told
// nothing of what is there, and nothing of the other's has changed. Who may not call a route at all is told what the route
// table says. What names nothing shows nothing of it either.
func TestNobodyReachesAnotherOperator(t *testing.T) {
	t.Parallel()
	s := New(Options{})
	w := sweep{s: s, bodies: exampleBodies(t), victim: planted(t, s, "canary-victim"), callers: map[string]sweepCaller{}}
	own, tenant := planted(t, s, "canary-own"), planted(t, s, "canary-tenant")
	own.op.policy.RequireIntentApproval, tenant.op.policy.RequireIntentApproval = true, true
	tenant.op.partner = own.op
	for kind, bearer := range own.bearers(t, s) {
		w.callers[kind] = sweepCaller{own, bearer}
	}
	for kind, bearer := range tenant.bearers(t, s) {
		if !strings.HasPrefix(kind, "oauth ") { // those are one thing at every account
			w.callers["tenant's "+kind] = sweepCaller{tenant, bearer}
		}
	}
	w.state = stateOf(w.victim.op)
	var lists, named, others []*route
	for i := range s.routes {
		switch r := &s.routes[i]; {
		case r.public:
			_, listed := byLink[r.method+" "+r.pattern]
			assert.Equal(t, len(r.references()) > 0, listed, "%s %s", r.method, r.pattern)
		case len(r.references()) > 0:
			named = append(named, r)
		case r.method == http.MethodGet:
			lists = append(lists, r)
		default:
			others = append(others, r)
		}
	}
	for _, r := range lists { // before the callers' own audit logs tell what was named
		w.ask(t, r, nil)
	}
	for _, r := range named {
		for _, ref := range r.references() {
			w.ask(t, r, &ref)
		}
	}
	for _, r := range others { // last, since these change what the callers have
		w.ask(t, r, nil)
	}
}

type sweep struct {
	s       *Server
	bodies  map[string]any
	victim  *holdings
	state   string // of the victim
	callers map[string]sweepCaller
}

type sweepCaller struct {
	own    *holdings
	bearer func() string
}

// ask has each caller name what is the victim's, in one place.
func (w sweep) ask(t *testing.T, r *route, ref *reference) {
	t.Helper()
	where, foreign := r.method+" "+r.pattern, ""
	if ref != nil {
		where += " " + ref.String()
		if foreign = w.victim.id(r, ref.name()); !assert.NotEmpty(t, foreign, "%s: nothing of this kind is planted", where) {
			return
		}
	}
	for kind, caller := range w.callers {
		who := where + " as " + kind
		req := sweepRequest(t, r, w.bodies, caller.own, ref, foreign)
		req.Header.Set("Authorization", caller.bearer())
		rec := httptest.NewRecorder()
		w.s.ServeHTTP(rec, req)
		_, barred := w.s.admitBearer(caller.bearer(), r)
		var refusal *apiError
		switch {
		case errors.As(barred, &refusal):
			assert.Equal(t, refusal.status, rec.Code, who)
		case inMarket[where]:
			continue
		case ref == nil, ref.place == "query" && rec.Code == http.StatusOK: // it chose nothing
		case compared[where] && rec.Code == http.StatusBadRequest:
		case where == "POST /v1/intents/simulate header X-Intent-Approval-Id" && rec.Code == http.StatusOK:
			assert.Contains(t, rec.Body.String(), `"allowed":false`, "it foretells the refusal")
		default:
			assert.Contains(t, []int{401, 403, 404}, rec.Code, "%s: %.300s", who, rec.Body)
		}
		w.tellsNothing(t, rec.Body.String(), foreign, who)
	}
	assert.Equal(t, w.state, stateOf(w.victim.op), where)
}

// tellsNothing looks for what is the victim's in an answer, beside what was sent.
func (w sweep) tellsNothing(t *testing.T, answer, sent, who string) {
	t.Helper()
	if sent != "" {
		answer = strings.ReplaceAll(answer, sent, "")
	}
	if sent == w.victim.ids["token"] {
		answer = strings.ReplaceAll(answer, w.victim.ids["jti"], "") // which is in it
	}
	assert.NotContains(t, answer, "canary-victim", who)
	for name, id := range w.victim.ids {
		if strings.Contains(answer, id) {
			t.Errorf("%s: is told the victim's %s", who, name)
		}
	}
}

// What the sweep names is really there: to its owner, the same requests are not answered as if it were not.
func TestTheSweepNamesWhatIsThere(t *testing.T) {
	t.Parallel()
	s, bodies := New(Options{}), exampleBodies(t)
	require.NoError(t, s.MapUpstream("slack.com", answering(`{}`)))
	var own *holdings
	for i := range s.routes {
		r := &s.routes[i]
		if r.public || len(r.references()) == 0 {
			continue
		}
		if own == nil {
			own = planted(t, s, "canary")
		}
		key := newAPIKey(own.op.id)
		s.keys.add(key, keyOwner{op: own.op})
		req := sweepRequest(t, r, bodies, own, nil, "")
		req.Header.Set("Authorization", "Bearer "+key)
		rec := httptest.NewRecorder()
		s.ServeHTTP(rec, req)
		where := r.method + " " + r.pattern
		assert.NotContains(t, []int{http.StatusUnauthorized, http.StatusInternalServerError}, rec.Code, where)
		assert.Equal(t, where == "POST /v1/proxy/operations/get", rec.Code == http.StatusNotFound, "%s: %s", where, rec.Body)
		assert.NotContains(t, rec.Body.String(), `"check":"validation"`, where)
		if r.method != http.MethodGet || strings.HasPrefix(r.pattern, "/v1/credentials/") { // it may have ended what the next is about
			own = nil
		}
	}
}
