// Package openapi has the parts of an OpenAPI 3.1 document, as far as the mock's own description needs them.
package openapi

import "github.com/google/jsonschema-go/jsonschema"

// Document is a whole description.
type Document struct {
	OpenAPI    string                           `json:"openapi"`
	Info       Info                             `json:"info"`
	Servers    []Server                         `json:"servers"`
	Security   []Security                       `json:"security"`
	Tags       []Tag                            `json:"tags"`
	Paths      map[string]map[string]*Operation `json:"paths"` // by path, then by method in small letters
	Components Components                       `json:"components"`
}

// Info says what is described.
type Info struct {
	Title       string `json:"title"`
	Version     string `json:"version"`
	Description string `json:"description"`
}

// Server is a base address.
type Server struct {
	URL string `json:"url"`
}

// Security names the schemes that a call needs, with their scopes. The empty one needs none.
type Security map[string][]string

// Tag is a group of operations.
type Tag struct {
	Name string `json:"name"`
}

// Components are what the operations refer to, by name.
type Components struct {
	Schemas         map[string]*jsonschema.Schema `json:"schemas"`
	Responses       map[string]*Response          `json:"responses"`
	SecuritySchemes map[string]SecurityScheme     `json:"securitySchemes"`
}

// SecurityScheme is a way to say who calls.
type SecurityScheme struct {
	Type        string `json:"type"`
	Scheme      string `json:"scheme"`
	Description string `json:"description"`
}

// Operation is one endpoint.
type Operation struct {
	OperationID string               `json:"operationId"`
	Summary     string               `json:"summary"`
	Description string               `json:"description"`
	Tags        []string             `json:"tags"`
	Security    []Security           `json:"security,omitempty"`
	Parameters  []Parameter          `json:"parameters,omitempty"`
	RequestBody *RequestBody         `json:"requestBody,omitempty"`
	Responses   map[string]*Response `json:"responses"` // by status
}

// Parameter is a part of the path or the query, or a header.
type Parameter struct {
	Name        string             `json:"name"`
	In          string             `json:"in"`
	Description string             `json:"description,omitempty"`
	Required    bool               `json:"required,omitempty"`
	Schema      *jsonschema.Schema `json:"schema"`
	Example     any                `json:"example"`
}

// RequestBody is what an operation takes.
type RequestBody struct {
	Required bool                 `json:"required"`
	Content  map[string]MediaType `json:"content"`
}

// Response is what an operation answers, or refers to one of the components.
type Response struct {
	Ref         string               `json:"$ref,omitempty"`
	Description string               `json:"description,omitempty"`
	Content     map[string]MediaType `json:"content,omitempty"`
	Links       map[string]Link      `json:"links,omitempty"`
}

// MediaType is one form of a body.
type MediaType struct {
	Schema  *jsonschema.Schema `json:"schema"`
	Example any                `json:"example"`
}

// Link says how an answer leads to another operation.
type Link struct {
	OperationID string            `json:"operationId"`
	Parameters  map[string]string `json:"parameters"`
}
