package tool

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/getstack-go/stack"
)

// maxErrorBody is how much of an upstream's error answer the model sees, in bytes.
const maxErrorBody = 2 << 10

// Proxier sends a request through the credential proxy. A *stack.Mission is one, and so is what [FromContext] returns.
type Proxier interface {
	Proxy(ctx context.Context, r stack.ProxyRequest) (*stack.ProxyResponse, error)
}

type contextKey struct{}

// NewContext returns a context that carries p, usually a Mission, for tools made with [FromContext]. Give it to the agent's
// run: ctx := tool.NewContext(mission.Context(), mission).
func NewContext(ctx context.Context, p Proxier) context.Context {
	return context.WithValue(ctx, contextKey{}, p)
}

// FromContext returns a Proxier that passes each request to the one that [NewContext] put into its context. It is for
// tools that are made before their Mission, or shared by many: give it to [ProxyTool], or call its Proxy in a function of
// [New]. A context that carries none is a mistake in the program, and ends the run.
func FromContext() Proxier { return fromContext{} }

type fromContext struct{}

func (fromContext) Proxy(ctx context.Context, r stack.ProxyRequest) (*stack.ProxyResponse, error) {
	p, ok := ctx.Value(contextKey{}).(Proxier)
	if !ok {
		return nil, fmt.Errorf("%w: its context carries no Mission; start the run with tool.NewContext", errDefect)
	}
	return p.Proxy(ctx, r)
}

// Endpoint is the one request that a proxy tool makes. An argument's name in braces stands for its value, in the path of the
// URL, in the values of its query and in the values of headers. All other arguments are the JSON body. The URL may also hold
// {{instance_url}} and {{account_id}}, which the server fills in from the connection.
type Endpoint struct {
	Service string            // provider key of the connected service, such as github
	Method  string            // GET, POST, PUT, PATCH or DELETE
	URL     string            // such as https://api.github.com/repos/{owner}/{repo}/issues?state={state}
	Headers map[string]string // such as {"Accept": "application/vnd.github+json", "If-None-Match": "{etag}"}
}

// ProxyTool makes a tool of one HTTP request that goes through p. In describes the arguments as in [New]; what is sent is
// what the model gave, checked against it.
//
// Path arguments must be required, and each is escaped as a part of one segment; one that is empty or holds "." or ".." as a
// segment is refused as a wrong argument. Query parameters and headers whose argument is left out are left out. Arguments in
// the URL or a header must be strings, numbers or booleans. A GET has no body, so each of its arguments needs a place.
//
// The model is given {"status","body"}, of an error answer (status 400 and above) the first 2 KiB: what the upstream says
// is data, not a failure of the tool. ProxyTool fails as [New] does, and when p or the service is missing or the endpoint
// does not fit the arguments.
func ProxyTool[In any](name, description string, p Proxier, e Endpoint, opts ...Option) (*Tool, error) {
	return build[In](name, description, opts, func(t *Tool) error {
		if p == nil {
			return errors.New("the proxier is nil")
		}
		plan, err := newPlan(e, t.root)
		if err != nil {
			return err
		}
		t.run = func(ctx context.Context, args json.RawMessage) (string, error) {
			if _, err := decode[In](t, args); err != nil {
				return "", err
			}
			request, err := plan.request(args, t.root)
			if err != nil {
				return "", err
			}
			response, err := p.Proxy(ctx, request)
			if err != nil {
				return "", err
			}
			return show(response)
		}
		return nil
	})
}

// show makes an upstream's answer into text.
func show(response *stack.ProxyResponse) (string, error) {
	var answer struct {
		Status int             `json:"status"`
		Body   json.RawMessage `json:"body,omitempty"`
	}
	answer.Status = response.Status
	if !bytes.Equal(response.Body, []byte("null")) {
		answer.Body = response.Body
	}
	text, err := encode(answer)
	if err == nil && response.Status >= http.StatusBadRequest {
		text = cut(text, maxErrorBody)
	}
	return text, err
}

// plan is an endpoint taken apart. What is in braces in its templates are arguments.
type plan struct {
	service, method string
	url             string // template, without the query
	query, headers  map[string]string
	placed          map[string]bool // the arguments that the body does not get
}

// placeholder matches an argument, or what the server fills in, whose submatch is empty.
var placeholder = regexp.MustCompile(`\{\{[^{}]*\}\}|\{([^{}]+)\}`)

// serverFills stands in for what the server fills into a URL. (contract: server-api, the proxy)
var serverFills = strings.NewReplacer("{{instance_url}}", "https://instance", "{{account_id}}", "account")

// newPlan takes the endpoint apart and checks it against the schema of the arguments.
func newPlan(e Endpoint, schema *jsonschema.Schema) (*plan, error) {
	p := &plan{
		service: e.Service, method: e.Method, query: map[string]string{}, headers: maps.Clone(e.Headers),
		placed: map[string]bool{},
	}
	if e.Service == "" {
		return nil, errors.New("the endpoint has no service")
	}
	switch e.Method {
	case http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
	default:
		return nil, fmt.Errorf("method %q must be GET, POST, PUT, PATCH or DELETE", e.Method)
	}
	if err := p.setURL(e.URL, schema); err != nil {
		return nil, fmt.Errorf("URL %q: %w", e.URL, err)
	}
	for name, template := range p.headers {
		if err := p.place(template, schema); err != nil {
			return nil, fmt.Errorf("header %s: %w", name, err)
		}
	}
	if p.method == http.MethodGet {
		for name := range schema.Properties {
			if !p.placed[name] {
				return nil, fmt.Errorf("argument %q has no place in a GET: put {%s} into the URL or a header", name, name)
			}
		}
	}
	return p, nil
}

func (p *plan) setURL(template string, schema *jsonschema.Schema) error {
	var rawQuery string
	p.url, rawQuery, _ = strings.Cut(template, "?")
	filled := serverFills.Replace(p.url)
	u, err := url.Parse(filled)
	var unparsable *url.Error
	if errors.As(err, &unparsable) {
		return unparsable.Err // without the URL once more
	}
	switch {
	case u.Scheme != "https" && u.Scheme != "http", u.Host == "":
		return errors.New("it must be absolute, http or https")
	case strings.ContainsAny(u.Host, "{}"):
		return errors.New("the host must be fixed")
	case u.User != nil, strings.Contains(template, "#"):
		return errors.New("it must have neither user nor fragment")
	case strings.Contains(filled, "{{"):
		return errors.New("the server fills in {{instance_url}} and {{account_id}} only")
	case strings.ContainsAny(placeholder.ReplaceAllString(filled, ""), "{}"):
		return errors.New("a brace lacks its other half")
	}
	if err = p.place(p.url, schema); err != nil {
		return err
	}
	for name := range p.placed {
		if !slices.Contains(schema.Required, name) {
			return fmt.Errorf("argument %q is part of the path, so it must be required", name)
		}
	}
	query, err := url.ParseQuery(rawQuery)
	if err != nil {
		return err
	}
	for name, templates := range query {
		if len(templates) > 1 {
			return fmt.Errorf("query parameter %q occurs more than once", name)
		}
		p.query[name] = templates[0]
		if err = p.place(templates[0], schema); err != nil {
			return err
		}
	}
	return nil
}

// place notes the arguments of a template.
func (p *plan) place(template string, schema *jsonschema.Schema) error {
	for _, found := range placeholder.FindAllStringSubmatch(template, -1) {
		name := found[1]
		if name == "" {
			continue
		}
		property := schema.Properties[name]
		if property == nil {
			return fmt.Errorf("there is no argument %q", name)
		}
		switch property.Type {
		case "string", "integer", "number", "boolean":
		default:
			return fmt.Errorf("argument %q must be a string, a number or a boolean", name)
		}
		p.placed[name] = true
	}
	return nil
}

// request fills the endpoint with the arguments. Its errors are all of type *ArgumentError.
func (p *plan) request(args json.RawMessage, schema *jsonschema.Schema) (stack.ProxyRequest, error) {
	r := stack.ProxyRequest{Service: p.service, Method: p.method}
	values := map[string]any{}
	dec := json.NewDecoder(bytes.NewReader(args))
	dec.UseNumber() // ids above 2^53 stay what they are
	if err := dec.Decode(&values); err != nil {
		return r, &ArgumentError{Reason: err.Error()}
	}
	dropNulls(values, schema)

	var err error
	if r.URL, err = p.fillPath(values); err != nil {
		return r, err
	}
	r.Query, _ = fill(p.query, values)
	var bad string
	if r.Headers, bad = fill(p.headers, values); bad != "" {
		return r, &ArgumentError{Reason: bad + ": a header value must not hold control characters"}
	}
	maps.DeleteFunc(values, func(name string, _ any) bool { return p.placed[name] })
	if len(values) > 0 {
		if p.method == http.MethodGet { // possible when the schema takes names that it does not list
			return r, &ArgumentError{Reason: fmt.Sprintf("there is no place for %q", slices.Sorted(maps.Keys(values)))}
		}
		r.Body = values
	}
	return r, nil
}

// argumentOf returns the argument that a match of placeholder names, if it does.
func argumentOf(found string) (name string, ok bool) {
	return found[1 : len(found)-1], !strings.HasPrefix(found, "{{")
}

// fillPath escapes each argument as a part of one segment, and refuses what would address something else.
func (p *plan) fillPath(values map[string]any) (string, error) {
	var err error
	filled := placeholder.ReplaceAllStringFunc(p.url, func(found string) string {
		name, ok := argumentOf(found)
		if !ok {
			return found
		}
		value := fmt.Sprint(values[name])
		parts := strings.FieldsFunc(value, func(r rune) bool { return r == '/' || r == '\\' })
		if value == "" || slices.Contains(parts, ".") || slices.Contains(parts, "..") {
			err = &ArgumentError{Reason: fmt.Sprintf("%s: %q cannot be part of a path", name, value)}
		}
		return url.PathEscape(value)
	})
	return filled, err
}

// fill fills templates, leaving out those with an argument that was left out. bad names an argument with a control
// character in it.
func fill(templates map[string]string, values map[string]any) (filled map[string]string, bad string) {
	filled = make(map[string]string, len(templates))
	for key, template := range templates {
		complete := true
		text := placeholder.ReplaceAllStringFunc(template, func(found string) string {
			name, ok := argumentOf(found)
			if !ok {
				return found
			}
			value, ok := values[name]
			complete = complete && ok
			text := fmt.Sprint(value)
			if strings.ContainsFunc(text, unicode.IsControl) {
				bad = name
			}
			return text
		})
		if complete {
			filled[key] = text
		}
	}
	return filled, bad
}
