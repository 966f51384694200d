package main

import (
	"encoding/json"
	"net/http"
	"sync"
)

// The credentials that the operator connects with. No agent ever sees them.
const (
	notionToken = "ntn_handoff-demo-credential"
	slackToken  = "xoxb-handoff-demo-credential"
)

// fakeNotion has one page of findings.
func fakeNotion(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if r.Header.Get("Authorization") != "Bearer "+notionToken {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	reply(w, map[string]any{"title": "Quarter in numbers", "rows": []finding{
		{Text: "Orders grew by 12 per cent", Source: "sheet Orders"},
		{Text: "Refunds fell by a third", Source: "sheet Refunds"},
	}})
}

// fakeSlack remembers what was posted.
type fakeSlack struct {
	mu     sync.Mutex
	posted []string
}

func (s *fakeSlack) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	var message slackMessage
	if r.Header.Get("Authorization") != "Bearer "+slackToken || json.NewDecoder(r.Body).Decode(&message) != nil {
		reply(w, map[string]any{"ok": false, "error": "invalid_request"})
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.posted = append(s.posted, message.Channel+"  "+message.Text)
	reply(w, map[string]any{"ok": true})
}

func (s *fakeSlack) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.posted...)
}

func reply(w http.ResponseWriter, v any) { _ = json.NewEncoder(w).Encode(v) }
