// Package modelserver stands for OpenAI in the examples: it speaks the part of chat completions that an agent needs, and
// where a real model would think, it asks a function.
package modelserver

import (
	"encoding/json"
	"net/http"

	"github.com/getstack-go/stack/stacktest"
)

// Host is whose part it takes, and Key the key that it wants to see there.
const (
	Host = "api.openai.com"
	Key  = "sk-demo-key-of-the-model"
)

// Message is one of a chat.
type Message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// Answer is what the model says or, with the name of a tool, which call it wants.
type Answer struct {
	Text      string
	Tool      string
	Arguments any
}

// Install makes it answer for OpenAI on the mock: with what decide makes of the last message of each chat.
func Install(server *stacktest.Server, decide func(last Message) Answer) {
	server.Upstream(Host, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var request struct {
			Messages []Message `json:"messages"`
		}
		w.Header().Set("Content-Type", "application/json")
		switch {
		case r.Header.Get("Authorization") != "Bearer "+Key:
			refuse(w, http.StatusUnauthorized, "no such key")
		case json.NewDecoder(r.Body).Decode(&request) != nil || len(request.Messages) == 0:
			refuse(w, http.StatusBadRequest, "a chat with messages of text is expected")
		default:
			reply(w, decide(request.Messages[len(request.Messages)-1]))
		}
	}))
}

func refuse(w http.ResponseWriter, status int, message string) {
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{"message": message}})
}

func reply(w http.ResponseWriter, answer Answer) {
	message, finish := map[string]any{"role": "assistant", "content": answer.Text}, "stop"
	if answer.Tool != "" {
		arguments, err := json.Marshal(answer.Arguments)
		if err != nil {
			refuse(w, http.StatusInternalServerError, err.Error())
			return
		}
		message["tool_calls"] = []any{map[string]any{"id": "call_1", "type": "function",
			"function": map[string]any{"name": answer.Tool, "arguments": string(arguments)}}}
		finish = "tool_calls"
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"id": "chatcmpl-demo", "object": "chat.completion", "model": "demo",
		"choices": []any{map[string]any{"index": 0, "message": message, "finish_reason": finish}},
		"usage":   map[string]any{"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}})
}
