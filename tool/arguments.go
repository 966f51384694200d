package tool

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// arg1 is the one argument that langchaingo's functions agent declares for every tool.
const arg1 = "__arg1"

// maxWrappings bounds how often arguments may be wrapped into one another: text in arg1 in text.
const maxWrappings = 4

// arguments reads and checks the model's arguments. Its errors are all of type *ArgumentError.
func (t *Tool) arguments(input string) (json.RawMessage, error) {
	_, declared := t.root.Properties[arg1]
	args, err := readObject(input, declared)
	if err != nil {
		return nil, t.badArguments(err.Error())
	}
	var value any // numbers as float64: the validator takes json.Number for a string
	if err := json.Unmarshal(args, &value); err != nil {
		return nil, t.badArguments(err.Error())
	}
	dropNulls(value, t.root)
	if err := t.resolved.Validate(value); err != nil {
		return nil, t.badArguments(explain(err))
	}
	return args, nil
}

// badArguments says what is wrong, and what the arguments are.
func (t *Tool) badArguments(reason string) *ArgumentError {
	const limit = 500
	return &ArgumentError{Reason: cut(reason, limit) + "; " + t.usage}
}

// readObject finds the JSON object in what a model or an agent library made of it: fences and text around it, a lone arg1
// around it (unless the tool declares one), the whole as a JSON string. No text at all means no arguments.
func readObject(input string, keepArg1 bool) (json.RawMessage, error) {
	text := input
	for range maxWrappings {
		text = strings.TrimSpace(text)
		if text == "" || text == "null" {
			return json.RawMessage("{}"), nil
		}
		if text[0] == '"' {
			var inner string
			if json.Unmarshal([]byte(text), &inner) == nil {
				text = inner
				continue
			}
		}
		start := strings.IndexByte(text, '{')
		if start < 0 {
			return nil, errors.New("the arguments are not a JSON object")
		}
		// The first object of a list is not the arguments: the others would be lost without a word.
		if strings.HasSuffix(strings.TrimSpace(text[:start]), "[") {
			return nil, errors.New("the arguments are a list; they must be one JSON object")
		}
		var object json.RawMessage
		if err := json.NewDecoder(strings.NewReader(text[start:])).Decode(&object); err != nil {
			return nil, fmt.Errorf("the arguments are not valid JSON: %w", err)
		}
		if keepArg1 {
			return object, nil
		}
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(object, &fields); err != nil {
			return nil, fmt.Errorf("the arguments are not valid JSON: %w", err)
		}
		inner, wrapped := fields[arg1]
		if !wrapped || len(fields) > 1 {
			return object, nil
		}
		text = string(inner)
	}
	return nil, fmt.Errorf("the arguments are wrapped more than %d times", maxWrappings)
}

// decode reads checked arguments into the type of the function's parameter. What still fails is what a schema does not
// check: a number too large for its Go type, a time or base64 text that is none.
func decode[In any](t *Tool, args json.RawMessage) (In, error) {
	var in In
	err := json.Unmarshal(args, &in)
	if err == nil {
		return in, nil
	}
	var mismatch *json.UnmarshalTypeError
	if errors.As(err, &mismatch) {
		reason := fmt.Sprintf("%s: %s does not fit into %s", mismatch.Field, mismatch.Value, mismatch.Type)
		return in, t.badArguments(reason)
	}
	return in, t.badArguments(culprit[In](args) + err.Error())
}

// culprit names the top-level field at which decoding fails, for errors that do not say it.
func culprit[In any](args json.RawMessage) string {
	var fields map[string]json.RawMessage
	if json.Unmarshal(args, &fields) != nil {
		return ""
	}
	for name, value := range fields {
		var in In
		if one, err := json.Marshal(map[string]json.RawMessage{name: value}); err == nil && json.Unmarshal(one, &in) != nil {
			return name + ": "
		}
	}
	return ""
}
