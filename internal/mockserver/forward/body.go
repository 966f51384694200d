package forward

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
)

// EncodingHeader tells the caller that a body is {"base64": "…"} because it was no text.
const EncodingHeader = "x-stack-body-encoding"

const formType = "application/x-www-form-urlencoded"

// outgoing is a body in two views: as the upstream gets it, and as what it means.
type outgoing struct {
	bytes       []byte
	contentType string // to set when the caller gave none
	content     any
}

// DecodeBody returns what the upstream will understand a call's body to be: the decoded JSON, numbers as [json.Number]; or
// [url.Values] for a form; or the text itself; or nil when there is none. It is what constraints and scans should look at,
// and fails with the same [*Error] for which [Forwarder.Do] would refuse the body or the headers.
func DecodeBody(headers map[string]string, body json.RawMessage) (any, error) {
	header, err := requestHeader(headers)
	if err != nil {
		return nil, err
	}
	out, err := convertBody(header, body)
	return out.content, err
}

// convertBody makes the upstream's body. An object or array is sent as JSON just as it was written, or as a form where the
// caller's content type asks for one; a string is sent as its bytes; another scalar as JSON; null is no body. JSON must have
// no key twice in one object, since two readers of it would see two different things.
// (contract: decisions, Bodies through the proxy)
func convertBody(header http.Header, body json.RawMessage) (outgoing, error) {
	body = bytes.TrimSpace(body)
	if len(body) == 0 || string(body) == "null" {
		return outgoing{}, nil
	}
	value, err := checkedJSON(body)
	if err != nil {
		return outgoing{}, err
	}
	kind := mediaType(header.Get("Content-Type"))
	switch v := value.(type) {
	case string:
		return convertText(kind, v)
	case map[string]any, []any:
		if kind == formType {
			form, err := formOf(v)
			return outgoing{bytes: []byte(form.Encode()), content: form}, err
		}
	}
	return outgoing{bytes: body, contentType: "application/json", content: value}, nil
}

func convertText(kind, text string) (outgoing, error) {
	out := outgoing{bytes: []byte(text), contentType: "text/plain; charset=utf-8", content: text}
	switch {
	case kind == formType:
		if form, err := url.ParseQuery(text); err == nil {
			out.content = form
		}
	case isJSONType(kind) && json.Valid(out.bytes):
		value, err := checkedJSON(out.bytes)
		if err != nil {
			return outgoing{}, err
		}
		out.content = value
	}
	return out, nil
}

// formOf turns an object of scalars and arrays of scalars into a form. An array gives its key several times, null gives
// nothing.
func formOf(value any) (url.Values, error) {
	object, ok := value.(map[string]any)
	if !ok {
		return nil, invalid("body", "is an array, which has no form fields", "an object when the content type is "+formType)
	}
	form := url.Values{}
	for _, key := range slices.Sorted(maps.Keys(object)) {
		items, isList := object[key].([]any)
		if !isList {
			items = []any{object[key]}
		}
		for _, item := range items {
			switch item := item.(type) {
			case nil:
			case string:
				form.Add(key, item)
			case json.Number, bool:
				form.Add(key, fmt.Sprint(item))
			default:
				return nil, invalid("body."+clip(key), "is nested",
					"a scalar or an array of scalars, since the content type is "+formType+" (or JSON written as a string)")
			}
		}
	}
	return form, nil
}

// checkedJSON decodes a document that must be JSON in UTF-8 with no key twice in one object.
func checkedJSON(document []byte) (any, error) {
	const good = "JSON in UTF-8"
	if !utf8.Valid(document) {
		return nil, invalid("body", "is not valid UTF-8", good)
	}
	if !json.Valid(document) {
		return nil, invalid("body", "is not valid JSON", good)
	}
	if bytes.IndexByte(document, '{') >= 0 {
		if key, twice := repeatedKey(document); twice {
			return nil, invalid("body", fmt.Sprintf("has the key %q twice in one object", clip(key)),
				"JSON with each key once")
		}
	}
	value, err := decodeJSON(document)
	if err != nil {
		return nil, invalid("body", "is not valid JSON", good)
	}
	return value, nil
}

// repeatedKey looks for a key that one object of a valid document has twice.
func repeatedKey(document []byte) (string, bool) {
	dec := json.NewDecoder(bytes.NewReader(document))
	dec.UseNumber()
	type level struct {
		keys  map[string]bool // nil in an array
		value bool            // the next token is a value, not a key
	}
	var levels []level
	for {
		token, err := dec.Token()
		if err != nil {
			return "", false // the end
		}
		if n := len(levels); n > 0 && levels[n-1].keys != nil {
			top := &levels[n-1]
			if key, ok := token.(string); ok && !top.value {
				if top.keys[key] {
					return key, true
				}
				top.keys[key], top.value = true, true
				continue
			}
			top.value = false
		}
		switch token {
		case json.Delim('{'):
			levels = append(levels, level{keys: map[string]bool{}})
		case json.Delim('['):
			levels = append(levels, level{})
		case json.Delim('}'), json.Delim(']'):
			levels = levels[:len(levels)-1]
		}
	}
}

// answerBody makes the caller's body from an upstream's: JSON as it is, other text as a JSON string, bytes that are no text
// as {"base64": "…"}, nothing as null. Binary says that it is the third.
func answerBody(contentType string, data []byte, secrets *redactor) (body json.RawMessage, binary bool) {
	switch {
	case len(data) == 0:
		return json.RawMessage("null"), false
	case !utf8.Valid(data):
		clean := secrets.text(string(data))
		return encodeJSON(map[string]string{"base64": base64.StdEncoding.EncodeToString([]byte(clean))}), true
	case isJSONType(mediaType(contentType)) && json.Valid(data):
		return secrets.json(bytes.TrimSpace(data)), false
	}
	return encodeJSON(secrets.text(string(data))), false
}

// mediaType returns a content type without its parameters, in lower case.
func mediaType(contentType string) string {
	kind, _, _ := strings.Cut(contentType, ";")
	return strings.ToLower(strings.TrimSpace(kind))
}

func isJSONType(kind string) bool {
	return kind == "application/json" || kind == "text/json" || strings.HasSuffix(kind, "+json")
}

// decodeJSON decodes a document with numbers kept as they are written.
func decodeJSON(document []byte) (value any, err error) {
	dec := json.NewDecoder(bytes.NewReader(document))
	dec.UseNumber()
	err = dec.Decode(&value)
	return value, err
}

// escapedJSON writes a text as many encoders do, with <, > and & escaped.
func escapedJSON(text string) []byte {
	var b bytes.Buffer
	json.HTMLEscape(&b, encodeJSON(text))
	return b.Bytes()
}

// encodeJSON writes a value that came from JSON.
func encodeJSON(value any) json.RawMessage {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(value) // such a value always has a JSON form
	return bytes.TrimSpace(b.Bytes())
}
