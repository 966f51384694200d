package stack

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"
)

// maxProxiedBody is the largest request body that goes through a Mission's transport; the server takes 10 MiB with its
// envelope.
const maxProxiedBody = 9 << 20

const (
	operationHeader = "X-STACK-Authority-Request-Id"
	approvalHeader  = "X-Intent-Approval-Id"
)

// HTTPClient returns an HTTP client for Go API clients (slack-go, go-github, …) whose requests go to a connected service
// through [Mission.Proxy]: the credential is injected by STACK, and every request is logged. See [Mission.Transport].
func (m *Mission) HTTPClient(service string) *http.Client {
	return &http.Client{Transport: m.Transport(service)}
}

// Transport returns an http.RoundTripper over [Mission.Proxy]. Requests may be GET, POST, PUT, PATCH and DELETE, with a body of
// JSON or text, forms included; multipart and other binary bodies are refused before anything is sent, and an Authorization
// header is dropped, since the proxy injects the credential. A token form field, which slack-go sends even when it is empty,
// is dropped for the same reason. An X-STACK-Authority-Request-Id header on the request is its operation id, so that a
// retrying client repeats the same write; an X-Intent-Approval-Id header is its approval. Errors of the API come back as errors, wrapped by http.Client in *url.Error.
func (m *Mission) Transport(service string) http.RoundTripper {
	return &missionTransport{m, service}
}

type missionTransport struct {
	mission *Mission
	service string
}

// RoundTrip sends one request through the proxy.
func (t *missionTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	r, err := t.request(req)
	if req.Body != nil {
		if closeErr := req.Body.Close(); err == nil && closeErr != nil {
			err = fmt.Errorf("stack: closing the request body: %w", closeErr)
		}
	}
	if err != nil {
		return nil, err
	}
	resp, err := t.mission.Proxy(req.Context(), r)
	if err != nil {
		return nil, err
	}
	return httpResponse(req, resp)
}

// request turns an HTTP request into a proxied one, without changing it.
func (t *missionTransport) request(req *http.Request) (ProxyRequest, error) {
	target := *req.URL
	target.Fragment, target.RawFragment = "", ""
	r := ProxyRequest{Service: t.service, Method: req.Method, URL: target.String(),
		OperationID: req.Header.Get(operationHeader), ApprovalID: req.Header.Get(approvalHeader), Headers: map[string]string{}}
	for name, values := range req.Header {
		switch http.CanonicalHeaderKey(name) {
		case "Authorization", "Cookie", "Accept-Encoding", "Content-Length", http.CanonicalHeaderKey(operationHeader), approvalHeader:
		default:
			r.Headers[name] = strings.Join(values, ", ")
		}
	}
	if req.Body == nil || req.Body == http.NoBody {
		return r, nil
	}
	body, err := io.ReadAll(io.LimitReader(req.Body, maxProxiedBody+1))
	if err != nil {
		return r, fmt.Errorf("stack: reading the request body: %w", err)
	}
	if len(body) > maxProxiedBody {
		return r, &ParamError{Param: "body", Reason: fmt.Sprintf("is over %d bytes, more than the proxy takes", maxProxiedBody)}
	}
	if len(body) == 0 {
		return r, nil
	}
	kind, _, _ := mime.ParseMediaType(req.Header.Get("Content-Type"))
	switch {
	case strings.HasPrefix(kind, "multipart/"), !utf8.Valid(body):
		return r, &ParamError{Param: "body", Reason: "is " + kind + " or binary; the proxy takes JSON and text"}
	case isJSON(kind) && json.Valid(body) && bytes.ContainsAny(bytes.TrimSpace(body)[:1], "{["):
		r.Body = json.RawMessage(body)
	case kind == "application/x-www-form-urlencoded":
		form, err := url.ParseQuery(string(body))
		if err != nil {
			return r, &ParamError{Param: "body", Reason: "is not a well-formed form"}
		}
		if _, ok := form["token"]; ok {
			form.Del("token")
			body = []byte(form.Encode())
		}
		r.Body = string(body)
	default: // a scalar of JSON, too: it goes as it is written
		r.Body = string(body)
	}
	return r, nil
}

func isJSON(kind string) bool {
	return kind == "application/json" || kind == "text/json" || strings.HasSuffix(kind, "+json")
}

// httpResponse turns a proxied answer into an HTTP response.
func httpResponse(req *http.Request, r *ProxyResponse) (*http.Response, error) {
	if r.Status < 100 || r.Status > 999 {
		return nil, &DecodeError{Method: "POST", Route: "/v1/proxy", Status: 200,
			Err: fmt.Errorf("the service's status is %d", r.Status)}
	}
	header := http.Header{}
	for name, value := range r.Headers {
		switch key := http.CanonicalHeaderKey(name); key {
		case "Content-Length", "Content-Encoding", "Transfer-Encoding", "X-Stack-Body-Encoding":
		default:
			header.Set(key, value)
		}
	}
	body, err := plainBody(r)
	if err != nil {
		return nil, &DecodeError{Method: "POST", Route: "/v1/proxy", Status: 200, Excerpt: excerptUnlessJSON(r.Body), Err: err}
	}
	return &http.Response{
		Status: fmt.Sprintf("%d %s", r.Status, http.StatusText(r.Status)), StatusCode: r.Status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: header, Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)), Request: req,
	}, nil
}

// plainBody gives the bytes that the service sent.
func plainBody(r *ProxyResponse) ([]byte, error) {
	if len(r.Body) == 0 || string(r.Body) == "null" {
		return nil, nil
	}
	var kind, encoding string
	for name, value := range r.Headers {
		switch http.CanonicalHeaderKey(name) {
		case "Content-Type":
			kind, _, _ = mime.ParseMediaType(value)
		case "X-Stack-Body-Encoding":
			encoding = value
		}
	}
	if encoding == "base64" {
		var wrapped struct {
			Base64 *string `json:"base64"`
		}
		if err := json.Unmarshal(r.Body, &wrapped); err != nil || wrapped.Base64 == nil {
			return nil, errors.New("the body is said to be base64 and is not")
		}
		return base64.StdEncoding.DecodeString(*wrapped.Base64)
	}
	var text string
	if !isJSON(kind) && json.Unmarshal(r.Body, &text) == nil {
		return []byte(text), nil
	}
	return r.Body, nil
}
