package tool

import (
	"fmt"
	"slices"
	"strings"
)

// Set is a list of tools with distinct names. It is safe for concurrent use.
type Set struct {
	tools  []*Tool
	byName map[string]*Tool // by lower-cased name
}

// NewSet makes a set of the tools. It fails when one is nil and when two names are equal without regard to case: agents
// that look tools up that way would call the later one for both.
func NewSet(tools ...*Tool) (*Set, error) {
	s := &Set{tools: slices.Clone(tools), byName: make(map[string]*Tool, len(tools))}
	for i, t := range tools {
		if t == nil {
			return nil, fmt.Errorf("tool set: tool %d is nil", i)
		}
		key := strings.ToLower(t.name)
		if other, ok := s.byName[key]; ok {
			return nil, fmt.Errorf("tool set: the names %q and %q differ in case at most", other.name, t.name)
		}
		s.byName[key] = t
	}
	return s, nil
}

// Get returns the tool of the name, without regard to case.
func (s *Set) Get(name string) (*Tool, bool) {
	t, ok := s.byName[strings.ToLower(name)]
	return t, ok
}

// All returns the tools in the order in which they were given, in a slice that the caller may change.
func (s *Set) All() []*Tool { return slices.Clone(s.tools) }
