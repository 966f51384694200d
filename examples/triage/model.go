package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// topics decide the channel of a ticket: the first whose words occur in it.
var topics = []struct {
	channel string
	words   []string
}{
	{"#security", []string{"leaked", "phishing", "mfa", "locked out", "former employee", "api key"}},
	{"#incidents", []string{"outage", "incident", "stopped", "slow", "time out"}},
	{"#billing", []string{"charge", "invoice", "refund", "vat", "billing", "price", "credited"}},
	{"#product", []string{"bug", "feature", "export", "500", "umlaut", "broken"}},
}

// scriptedModel speaks the part of OpenAI's chat completions that an agent needs. Where a real model would think, it looks
// for words: asked about a ticket it calls the tool to post an acknowledgement, and given the tool's answer it finishes.
func scriptedModel(w http.ResponseWriter, r *http.Request) {
	var req struct {
		Messages []struct {
			Role    string `json:"role"`
			Content any    `json:"content"`
		} `json:"messages"`
		Tools []struct {
			Function struct {
				Name string `json:"name"`
			} `json:"function"`
		} `json:"tools"`
	}
	if r.URL.Path != "/v1/chat/completions" {
		http.NotFound(w, r)
		return
	}
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil || len(req.Messages) == 0 {
		w.WriteHeader(http.StatusBadRequest)
		reply(w, map[string]any{"error": map[string]any{"message": "a chat with messages is expected"}})
		return
	}
	last := req.Messages[len(req.Messages)-1]
	answer := map[string]any{"role": "assistant", "content": ""}
	finish := "stop"
	switch {
	case last.Role == "tool":
		answer["content"] = conclude(text(last.Content))
	case len(req.Tools) == 0:
		answer["content"] = "I have no tool to post with."
	default:
		arguments, _ := json.Marshal(acknowledge(text(last.Content))) // strings always encode
		answer["tool_calls"] = []any{map[string]any{"id": "call_1", "type": "function",
			"function": map[string]any{"name": req.Tools[0].Function.Name, "arguments": string(arguments)}}}
		finish = "tool_calls"
	}
	w.Header().Set("Content-Type", "application/json")
	reply(w, map[string]any{"id": "chatcmpl-scripted", "object": "chat.completion", "model": "scripted",
		"choices": []any{map[string]any{"index": 0, "message": answer, "finish_reason": finish}},
		"usage":   map[string]any{"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}})
}

// text flattens the two forms of a message's content.
func text(content any) string {
	if s, ok := content.(string); ok {
		return s
	}
	encoded, _ := json.Marshal(content) // it came from JSON
	return string(encoded)
}

// acknowledge decides what to post about a ticket, from the prompt that holds it.
func acknowledge(prompt string) postIn {
	_, ticket, _ := strings.Cut(prompt, "\nSubject: ") // the instructions before it name every topic
	lower := strings.ToLower(ticket)
	channel := "#support"
	for _, topic := range topics {
		if containsAny(lower, topic.words) {
			channel = topic.channel
			break
		}
	}
	return postIn{Channel: channel, Text: fmt.Sprintf("On it: %s (%s)", between(prompt, "Ticket ", "\n"), between(prompt, "Subject: ", "\n"))}
}

func containsAny(text string, words []string) bool {
	for _, word := range words {
		if strings.Contains(text, word) {
			return true
		}
	}
	return false
}

func between(text, before, after string) string {
	_, rest, _ := strings.Cut(text, before)
	found, _, _ := strings.Cut(rest, after)
	return strings.TrimSpace(found)
}

// conclude reads the tool's answer, as a model would.
func conclude(observation string) string {
	if strings.Contains(observation, `"error"`) {
		return "Could not acknowledge the ticket: " + observation
	}
	return "Acknowledged."
}
