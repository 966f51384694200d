package stack

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// call is one API call: what is sent, and whether it may be sent again.
type call struct {
	method, pattern string
	ids             []string // values of the pattern's {placeholders}, in order
	query           url.Values
	header          http.Header
	body            any        // nil sends no body
	form            url.Values // sent in place of body, for OAuth
	keyed           bool       // a key makes a repetition harmless
	raw             *url.URL   // set by Client.Do instead of ids and query
	missionBound    bool       // a refusal may mean that the Mission is over
}

func get(pattern string, ids ...string) *call  { return newCall(http.MethodGet, pattern, ids) }
func post(pattern string, ids ...string) *call { return newCall(http.MethodPost, pattern, ids) }
func patch(pattern string, ids ...string) *call {
	return newCall(http.MethodPatch, pattern, ids)
}
func put(pattern string, ids ...string) *call { return newCall(http.MethodPut, pattern, ids) }
func del(pattern string, ids ...string) *call { return newCall(http.MethodDelete, pattern, ids) }

func newCall(method, pattern string, ids []string) *call {
	return &call{method: method, pattern: pattern, ids: ids}
}

// with sets the JSON body.
func (c *call) with(body any) *call {
	c.body = body
	return c
}

// withForm sets the body to a form, which OAuth wants in place of JSON.
func (c *call) withForm(form url.Values) *call {
	c.form = form
	return c
}

// param adds a query parameter unless its value is empty.
func (c *call) param(name, value string) *call {
	if value != "" {
		if c.query == nil {
			c.query = url.Values{}
		}
		c.query.Set(name, value)
	}
	return c
}

// number adds a query parameter unless it is zero.
func (c *call) number(name string, value int) *call {
	if value == 0 {
		return c
	}
	return c.param(name, strconv.Itoa(value))
}

// head sets a header unless its value is empty.
func (c *call) head(name, value string) *call {
	if value != "" {
		if c.header == nil {
			c.header = http.Header{}
		}
		c.header.Set(name, value)
	}
	return c
}

// passport presents a passport with the call.
func (c *call) passport(token Secret) *call { return c.head("X-Passport-Token", token.Reveal()) }

// boundToMission reads a refusal that names a Mission as the Mission's end.
func (c *call) boundToMission() *call {
	c.missionBound = true
	return c
}

// url fills the ids into the pattern.
func (c *call) url(base *url.URL) (*url.URL, error) {
	if c.raw != nil {
		u := *base
		u.Path, u.RawPath = base.Path+c.raw.Path, base.EscapedPath()+c.raw.EscapedPath()
		u.RawQuery = c.raw.RawQuery
		return &u, nil
	}
	var plain, escaped strings.Builder
	rest, ids := c.pattern, c.ids
	for {
		open := strings.IndexByte(rest, '{')
		if open < 0 {
			break
		}
		end := strings.IndexByte(rest, '}')
		name, id := rest[open+1:end], ids[0]
		switch id {
		case "":
			return nil, &ParamError{Param: name, Reason: "is empty; it is required"}
		case ".", "..":
			return nil, &ParamError{Param: name, Reason: fmt.Sprintf("is %q, which is a path and not an id", id)}
		}
		plain.WriteString(rest[:open] + id)
		escaped.WriteString(rest[:open] + escapeSegment(id))
		rest, ids = rest[end+1:], ids[1:]
	}
	u := *base
	u.Path, u.RawPath = base.Path+plain.String()+rest, base.EscapedPath()+escaped.String()+rest
	u.RawQuery = c.query.Encode()
	return &u, nil
}

// escapeSegment leaves only unreserved characters as they are. (contract: endpoints 1.3, esc)
func escapeSegment(id string) string { return strings.ReplaceAll(url.QueryEscape(id), "+", "%20") }

// A server that asks for a longer wait than this gets its answer passed on to the caller at once.
const maxRetryWait = 30 * time.Second
