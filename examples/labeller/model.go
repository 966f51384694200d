package main

import (
	"strings"

	"github.com/getstack-go/stack/examples/internal/modelserver"
)

// words decide the label of an issue: the first of which one occurs in its title. The last is one that the agent must not give.
var words = []struct {
	label string
	words []string
}{
	{"bug", []string{"panic", "crash"}},
	{"documentation", []string{"typo", "guide"}},
	{"enhancement", []string{"add a", "feature"}},
	{"release-approved", []string{"release"}},
}

// think stands for the model: asked about an issue it labels it, and given the tool's answer it finishes.
func think(last modelserver.Message) modelserver.Answer {
	if last.Role == "tool" {
		if strings.Contains(last.Content, `"error"`) {
			return modelserver.Answer{Text: "I may not do that; left to a person."}
		}
		return modelserver.Answer{Text: "Labelled."}
	}
	_, title, _ := strings.Cut(last.Content, "Title: ")
	label := "question"
	for _, w := range words {
		if containsAny(strings.ToLower(title), w.words) {
			label = w.label
			break
		}
	}
	return modelserver.Answer{Tool: "add_label", Arguments: labelIn{Label: label}}
}

func containsAny(text string, words []string) bool {
	for _, word := range words {
		if strings.Contains(text, word) {
			return true
		}
	}
	return false
}
