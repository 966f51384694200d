// Package conform holds examples and answers against the API's own OpenAPI description. It is for tests.
package conform

import (
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/getstack-go/stack/internal/mockserver/openapi"
)

// Checker knows one description. It is safe for concurrent use.
type Checker struct {
	doc openapi.Document

	mu       sync.Mutex
	resolved map[string]*jsonschema.Resolved // by the schema's text
}

// New reads a description. It fails when it is none.
func New(description []byte) (*Checker, error) {
	c := &Checker{resolved: map[string]*jsonschema.Resolved{}}
	if err := json.Unmarshal(description, &c.doc); err != nil {
		return nil, fmt.Errorf("no OpenAPI description: %w", err)
	}
	return c, nil
}

// Answer fails for an answer that the description does not foresee: its route, its status, its kind or what is in it.
func (c *Checker) Answer(method string, u *url.URL, status int, contentType string, body []byte) error {
	op := c.operation(method, u)
	if op == nil {
		return fmt.Errorf("no operation %s %s", method, u.Path)
	}
	answer := op.Responses[strconv.Itoa(status)]
	if answer == nil {
		answer = op.Responses["default"]
	}
	if answer == nil {
		return fmt.Errorf("%s has no status %d: %s", op.OperationID, status, body)
	}
	if name, ok := strings.CutPrefix(answer.Ref, "#/components/responses/"); ok {
		answer = c.doc.Components.Responses[name]
	}
	kind, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return fmt.Errorf("%s answers with the content type %q: %w", op.OperationID, contentType, err)
	}
	media, ok := answer.Content[kind]
	if _, foreign := answer.Content["*/*"]; foreign && !ok {
		return nil
	}
	if !ok {
		return fmt.Errorf("%s has no answer %d of the kind %s", op.OperationID, status, kind)
	}
	if kind != "application/json" {
		return nil
	}
	if err = c.Value(media.Schema, body); err != nil {
		return fmt.Errorf("%s answers %d with %s: %w", op.OperationID, status, body, err)
	}
	return nil
}

// Value fails for JSON that is not of the schema.
func (c *Checker) Value(schema *jsonschema.Schema, text []byte) error {
	var value any
	var outOfRange *json.UnmarshalTypeError // all else is read nevertheless
	if err := json.Unmarshal(text, &value); err != nil && !errors.As(err, &outOfRange) {
		return err
	}
	resolved, err := c.resolve(schema)
	if err != nil {
		return err
	}
	return resolved.Validate(value)
}

// operation finds the one of a path. A segment that is written out goes before a placeholder.
func (c *Checker) operation(method string, u *url.URL) (found *openapi.Operation) {
	have := strings.Split(u.EscapedPath(), "/")
	best := len(have) + 1
	for pattern, item := range c.doc.Paths {
		op := item[strings.ToLower(method)]
		want := strings.Split(pattern, "/")
		if op == nil || len(want) != len(have) {
			continue
		}
		open := 0
		for i, segment := range want {
			if strings.HasPrefix(segment, "{") {
				open++
			} else if segment != have[i] {
				open = len(have) + 1
				break
			}
		}
		if open < best {
			best, found = open, op
		}
	}
	return found
}

var reference = regexp.MustCompile(`#/components/schemas/(\w+)`)

// resolve makes a schema able to stand alone, with those that it refers to.
func (c *Checker) resolve(schema *jsonschema.Schema) (*jsonschema.Resolved, error) {
	root, text, err := local(schema)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if r, ok := c.resolved[text]; ok {
		return r, nil
	}
	root.Defs = map[string]*jsonschema.Schema{}
	names := referredTo(schema)
	for len(names) > 0 {
		name := names[0]
		names = names[1:]
		if _, ok := root.Defs[name]; ok {
			continue
		}
		if root.Defs[name], _, err = local(c.doc.Components.Schemas[name]); err != nil {
			return nil, err
		}
		names = append(names, referredTo(c.doc.Components.Schemas[name])...)
	}
	c.resolved[text], err = root.Resolve(nil)
	return c.resolved[text], err
}

// local is a copy whose references lead to its own definitions.
func local(schema *jsonschema.Schema) (*jsonschema.Schema, string, error) {
	data, err := json.Marshal(schema)
	if err != nil {
		return nil, "", err
	}
	text := reference.ReplaceAllString(string(data), "#/$$defs/$1")
	var out jsonschema.Schema
	return &out, text, json.Unmarshal([]byte(text), &out)
}

func referredTo(schema *jsonschema.Schema) (names []string) {
	data, err := json.Marshal(schema)
	if err != nil {
		return nil
	}
	for _, m := range reference.FindAllStringSubmatch(string(data), -1) {
		if !slices.Contains(names, m[1]) {
			names = append(names, m[1])
		}
	}
	return names
}
