package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// hub is a GitHub with one repository, which gets an issue each interval.
type hub struct {
	began    time.Time
	interval time.Duration

	mu       sync.Mutex
	comments map[string]int // by the issue's number
}

func newHub(interval time.Duration) *hub {
	return &hub{began: time.Now(), interval: interval, comments: map[string]int{}}
}

func (h *hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	number, isComment := strings.CutSuffix(strings.TrimPrefix(r.URL.Path, "/repos/acme/shop/issues/"), "/comments")
	if isComment && r.Method == http.MethodPost {
		h.mu.Lock()
		h.comments[number]++
		h.mu.Unlock()
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write([]byte("{}"))
		return
	}
	since, _ := strconv.Atoi(r.URL.Query().Get("since"))
	issues := []issue{}
	for n := since + 1; n <= int(time.Since(h.began)/h.interval); n++ {
		issues = append(issues, issue{n, fmt.Sprintf("Something is wrong, number %d", n)})
	}
	_ = json.NewEncoder(w).Encode(issues) // the connection may be gone
}
