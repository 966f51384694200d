package mockserver

import (
	"bytes"
	"html/template"
	"net/http"
)

// pageHead begins the mock's own pages, where people do what on the hosted service they do elsewhere. A page has no script
// and loads nothing.
const pageHead = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<style>
body{font:16px/1.5 system-ui,sans-serif;max-width:34rem;margin:4rem auto;padding:0 1rem}
button{font:inherit;padding:.5rem 1rem}
</style>
`

// htmlPage fills in a page. Its address lets people in, so no other site learns of it.
func htmlPage(page *template.Template, data map[string]any) (*document, error) {
	var buf bytes.Buffer
	if err := page.Execute(&buf, data); err != nil {
		return nil, err
	}
	return &document{contentType: "text/html; charset=utf-8", body: buf.Bytes(), header: http.Header{
		"Content-Security-Policy": {"default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'"},
		"Referrer-Policy":         {"no-referrer"}}}, nil
}
