package main

import (
	"strings"

	"github.com/getstack-go/stack/examples/internal/modelserver"
)

// write stands for the writer's model: it makes one sentence of the findings that it is given.
func write(last modelserver.Message) modelserver.Answer {
	var texts []string
	for line := range strings.Lines(last.Content) {
		if text, ok := strings.CutPrefix(strings.TrimSpace(line), "- "); ok {
			texts = append(texts, text)
		}
	}
	return modelserver.Answer{Text: "This quarter: " + strings.ToLower(strings.Join(texts, "; ")) + "."}
}
