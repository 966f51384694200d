package mockserver

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/openapi"
)

const (
	jsonMedia = "application/json"
	anyMedia  = "*/*"
)

// answers says of a route whose handler makes its bytes itself what they are: of which type, and in which forms.
func answers[T any](media ...string) routeOption {
	return func(r *route) { r.out, r.media = reflect.TypeFor[T](), media }
}

// webPage is a route that people open in a browser, without a key.
func webPage(r *route) {
	public(r)
	answers[string]("text/html")(r)
}

func openAPIRoutes() []route {
	return []route{endpoint("GET", "/openapi.json", (*Server).openAPI, public, answers[map[string]any](jsonMedia))}
}

var (
	openAPIOnce sync.Once
	openAPIText []byte
)

// openAPI serves the description of the route table. It is the same for every server.
func (s *Server) openAPI(context.Context, *caller, none) (*document, error) {
	openAPIOnce.Do(func() {
		var buf bytes.Buffer
		enc := json.NewEncoder(&buf)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(describeRoutes(routes())); err != nil {
			panic("mockserver: " + err.Error())
		}
		openAPIText = buf.Bytes()
	})
	return &document{contentType: jsonMedia, body: openAPIText}, nil
}

// describeRoutes makes the OpenAPI document of a route table.
func describeRoutes(table []route) *openapi.Document {
	d := &describer{schemas: newSchemas(), table: table}
	out := &openapi.Document{OpenAPI: "3.1.0", Servers: []openapi.Server{{URL: "/"}}, Security: []openapi.Security{{"bearer": {}}},
		Info: openapi.Info{Title: "STACK API", Version: stack.Version,
			Description: "The API as the reference mock serves it, made from its route table. An answer may come to hold more fields and other values of its enums."},
		Paths: map[string]map[string]*openapi.Operation{},
		Components: openapi.Components{Responses: map[string]*openapi.Response{}, SecuritySchemes: map[string]openapi.SecurityScheme{"bearer": {
			Type: "http", Scheme: "bearer", Description: "An API key (sk_live_…), a partner's grant token (sk_grant_…), an OAuth " +
				"access token, or a token that an agent has signed (JWTs); for an agent's enrolment also its ticket (etk_…)."}}}}
	refusal := d.of(reflect.TypeFor[errorBody]())
	for status, codes := range errorCodes {
		texts := make([]any, len(codes))
		for i, code := range codes {
			texts[i] = code
		}
		schema := &jsonschema.Schema{AllOf: []*jsonschema.Schema{refusal, {Properties: map[string]*jsonschema.Schema{
			"error": {Properties: map[string]*jsonschema.Schema{"code": {Enum: texts}}}}}}}
		out.Components.Responses[responseName(status)] = &openapi.Response{Description: http.StatusText(status),
			Content: map[string]openapi.MediaType{jsonMedia: {Schema: schema, Example: map[string]any{"error": map[string]any{
				"code": codes[0], "message": "what was refused and why"}}}}}
	}
	tags := map[string]bool{}
	for i := range table {
		r := &table[i]
		op := d.operation(r)
		if out.Paths[r.pattern] == nil {
			out.Paths[r.pattern] = map[string]*openapi.Operation{}
		}
		out.Paths[r.pattern][strings.ToLower(r.method)] = op
		tags[op.Tags[0]] = true
	}
	d.link(out)
	for _, tag := range sortedKeys(tags) {
		out.Tags = append(out.Tags, openapi.Tag{Name: tag})
	}
	out.Components.Schemas = d.named
	return out
}

// responseName is that of the component with the refusals of a status.
func responseName(status int) string { return strings.ReplaceAll(http.StatusText(status), " ", "") }

// describer describes routes.
type describer struct {
	*schemas
	table []route
}

func (d *describer) operation(r *route) *openapi.Operation {
	op := &openapi.Operation{OperationID: r.name, Summary: sentence(r.name), Description: r.access(), Tags: []string{r.tag()},
		Responses: map[string]*openapi.Response{}}
	if r.public {
		op.Security = []openapi.Security{{}}
	}
	for i := range r.in.NumField() {
		field := r.in.Field(i)
		for _, place := range []string{"path", "query", "header"} {
			if name, ok := field.Tag.Lookup(place); ok {
				op.Parameters = append(op.Parameters, d.parameter(place, name, field.Type))
			}
		}
		for _, name := range strings.Fields(field.Tag.Get("rawquery")) {
			op.Parameters = append(op.Parameters, d.parameter("query", name, field.Type))
		}
		if _, ok := field.Tag.Lookup("body"); ok {
			schema := d.of(field.Type)
			object := d.resolve(schema)
			op.RequestBody = &openapi.RequestBody{Required: len(object.Required) > 0 || field.Type == rawType,
				Content: map[string]openapi.MediaType{jsonMedia: {Schema: schema, Example: d.example(schema, "body", false)}}}
		} else if _, ok := field.Tag.Lookup("raw"); ok {
			op.RequestBody = &openapi.RequestBody{Content: map[string]openapi.MediaType{anyMedia: {Schema: &jsonschema.Schema{}, Example: "any bytes"}}}
		}
	}
	if declared := slices.ContainsFunc(op.Parameters, func(p openapi.Parameter) bool { return p.Name == idempotencyHeader }); r.idempotent && !declared {
		p := d.parameter("header", idempotencyHeader, reflect.TypeFor[string]())
		p.Description, p.Required = "Repetitions of a call with the same key give the first answer.", r.keyRequired
		op.Parameters = append(op.Parameters, p)
	}
	if !r.public && r.method != http.MethodGet {
		p := d.parameter("header", "X-Governance-Approval", reflect.TypeFor[string]())
		p.Description = "The approval that the operator's governance asked for."
		op.Parameters = append(op.Parameters, p)
	}
	op.Responses[strconv.Itoa(r.success)] = d.answer(r)
	for status := range errorCodes {
		if r.out != rawType && r.mayRefuse(status, op) {
			op.Responses[strconv.Itoa(status)] = &openapi.Response{Ref: "#/components/responses/" + responseName(status)}
		}
	}
	if r.oauth {
		oauthRefusals(op)
	}
	if r.sendsOn {
		op.Responses["303"] = &openapi.Response{Description: "On to the redirect URI of the client or the callback, with a code, a ticket or an error."}
	}
	if r.showsProblems {
		for _, status := range []string{"400", "403", "429"} {
			op.Responses[status] = &openapi.Response{Description: "The page, with what is wrong.", Content: op.Responses["200"].Content}
		}
	}
	if r.out == rawType { // what a provider answers goes through as it is, with whatever status
		op.Responses["default"] = &openapi.Response{Description: "A refusal as of every other route, or the provider's own answer.",
			Content: map[string]openapi.MediaType{jsonMedia: {Schema: &jsonschema.Schema{}, Example: map[string]any{}},
				anyMedia: {Schema: &jsonschema.Schema{Type: "string"}, Example: "text"}}}
	}
	return op
}

// oauthRefusals puts the shape of RFC 6749 in place of the API's.
func oauthRefusals(op *openapi.Operation) {
	text := &jsonschema.Schema{Type: "string"}
	schema := &jsonschema.Schema{Type: "object", Required: []string{"error", "error_description"}, // and details beside them
		Properties: map[string]*jsonschema.Schema{"error": text, "error_description": text}}
	for status := range op.Responses {
		if code, _ := strconv.Atoi(status); code >= http.StatusBadRequest {
			op.Responses[status] = &openapi.Response{Description: http.StatusText(code), Content: map[string]openapi.MediaType{
				jsonMedia: {Schema: schema, Example: map[string]any{"error": "invalid_request", "error_description": "what was refused and why"}}}}
		}
	}
}

func (d *describer) answer(r *route) *openapi.Response {
	media := r.media
	if media == nil {
		media = []string{jsonMedia}
	}
	out := &openapi.Response{Description: "The answer.", Content: map[string]openapi.MediaType{}}
	for _, kind := range media {
		schema := d.of(r.out)
		if kind != jsonMedia {
			schema = &jsonschema.Schema{Type: "string"}
		}
		out.Content[kind] = openapi.MediaType{Schema: schema, Example: d.example(schema, "answer", true)}
	}
	return out
}

func (d *describer) parameter(place, name string, t reflect.Type) openapi.Parameter {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	p := openapi.Parameter{Name: name, In: place, Required: place == "path", Schema: d.of(t)}
	if t == timeType {
		p.Description = "An ISO-8601 time, or milliseconds since the Unix epoch."
		p.Schema = &jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Type: "string", Format: "date-time"}, {Type: "integer"}}}
	}
	p.Example = d.example(p.Schema, name, false)
	return p
}

// mayRefuse says whether a route can answer with a status of its own that refuses.
func (r *route) mayRefuse(status int, op *openapi.Operation) bool {
	changes := r.method != http.MethodGet
	switch status {
	case http.StatusBadRequest, http.StatusInternalServerError:
		return true
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests:
		return !r.public || changes
	case http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType:
		return op.RequestBody != nil
	case http.StatusNotFound:
		return op.RequestBody != nil || len(op.Parameters) > 0
	case http.StatusConflict, http.StatusGone:
		return changes || strings.Contains(r.pattern, "{")
	case http.StatusPaymentRequired:
		return changes && !r.public
	case http.StatusBadGateway, http.StatusGatewayTimeout:
		return r.unlocked && changes || r.foreignBody || r.waits
	}
	return false // no route, or not its method
}

// access says who may call a route.
func (r *route) access() string {
	switch {
	case r.public:
		return "Needs no key."
	case r.operatorOnly:
		return "Takes the operator's own key only."
	}
	return fmt.Sprintf("Takes the operator's key, or that of a team member who is at least %s.", r.role)
}

// tag is the part of the API that a route belongs to.
func (r *route) tag() string {
	segments := strings.Split(strings.TrimPrefix(r.pattern, "/v1"), "/")
	if tag, _, _ := strings.Cut(segments[1], "."); tag != "" {
		return tag
	}
	return "well-known"
}

// sentence makes "listAgents" to "List agents".
func sentence(name string) string {
	var out strings.Builder
	letters := []rune(name)
	for i, c := range letters {
		upper := unicode.IsUpper(c)
		switch {
		case i == 0:
			c = unicode.ToUpper(c)
		case upper && !unicode.IsUpper(letters[i-1]):
			out.WriteByte(' ')
			if i+1 < len(letters) && !unicode.IsUpper(letters[i+1]) {
				c = unicode.ToLower(c)
			}
		}
		out.WriteRune(c)
	}
	return out.String()
}
