package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"
)

// slackToken is what the operator connects Slack with. The agent never sees it; the proxy injects it.
const slackToken = "xoxb-triage-demo-credential"

// channels are those of the workspace.
var channels = []string{"#billing", "#incidents", "#product", "#security", "#support"}

// message is one post that Slack received.
type message struct {
	Channel string `json:"channel"`
	Text    string `json:"text"`
}

// fakeSlack answers the two methods of Slack's Web API that the agent uses, and remembers what was posted.
type fakeSlack struct {
	mu     sync.Mutex
	posted []message
}

func (s *fakeSlack) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if r.Header.Get("Authorization") != "Bearer "+slackToken {
		reply(w, map[string]any{"ok": false, "error": "invalid_auth"})
		return
	}
	switch r.Method + " " + r.URL.Path {
	case "GET /api/conversations.list":
		reply(w, map[string]any{"ok": true, "channels": channels})
	case "POST /api/chat.postMessage":
		var m message
		if err := json.NewDecoder(r.Body).Decode(&m); err != nil || m.Text == "" {
			reply(w, map[string]any{"ok": false, "error": "no_text"})
			return
		}
		if !slices.Contains(channels, m.Channel) {
			reply(w, map[string]any{"ok": false, "error": "channel_not_found"})
			return
		}
		s.mu.Lock()
		s.posted = append(s.posted, m)
		ts := fmt.Sprintf("1700000000.%06d", len(s.posted))
		s.mu.Unlock()
		reply(w, map[string]any{"ok": true, "channel": m.Channel, "ts": ts})
	default:
		w.WriteHeader(http.StatusNotFound)
		reply(w, map[string]any{"ok": false, "error": "unknown_method"})
	}
}

func (s *fakeSlack) messages() []message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.posted)
}

func reply(w http.ResponseWriter, v any) { _ = json.NewEncoder(w).Encode(v) }
