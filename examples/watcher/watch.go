package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/getstack-go/stack"
)

// watcher greets new issues.
type watcher struct {
	client  *stack.Client
	agentID string
	every   time.Duration
	rotate  time.Duration
	out     io.Writer

	seen               int // number of the newest issue that was greeted
	greeted, passports int
}

// issue is what GitHub tells of an issue.
type issue struct {
	Number int    `json:"number"`
	Title  string `json:"title"`
}

const issuesURL = "https://api.github.com/repos/acme/shop/issues"

// watch runs until the context ends or somebody stops it. Leaving the loop checks the last passport out and completes the
// Mission.
func (w *watcher) watch(ctx context.Context) error {
	for mission, err := range w.client.Passports.ContinuousMission(ctx, stack.ContinuousMissionParams{
		MissionParams:    stack.MissionParams{AgentID: w.agentID, Intent: "Greet new issues", Services: []string{"github"}},
		RotationInterval: w.rotate,
	}) {
		if err != nil {
			return err
		}
		w.passports++
		w.printf("passport %d\n", w.passports)
		if err = w.stretch(mission); err != nil {
			if ctx.Err() != nil { // the watch is over, which is no failure of the Mission
				return context.Cause(ctx)
			}
			return mission.Fail(err)
		}
	}
	return nil
}

// stretch works under one passport until it is time for the next.
func (w *watcher) stretch(mission *stack.Mission) error {
	ctx := mission.Context()
	for !mission.ShouldRotate() {
		if err := w.look(ctx, mission); err != nil {
			return err
		}
		select {
		case <-time.After(w.every):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// look greets what is new.
func (w *watcher) look(ctx context.Context, mission *stack.Mission) error {
	response, err := mission.Proxy(ctx, stack.ProxyRequest{Service: "github", URL: issuesURL,
		Query: map[string]string{"since": strconv.Itoa(w.seen)}})
	if err != nil {
		return err
	}
	if !response.OK() { // what is new stays so until the next look
		w.printf("  GitHub answered %d\n", response.Status)
		return nil
	}
	var issues []issue
	if err = response.Decode(&issues); err != nil {
		return err
	}
	for _, found := range issues {
		if found.Number <= w.seen {
			continue
		}
		if _, err = mission.Proxy(ctx, stack.ProxyRequest{Service: "github", Method: "POST",
			URL:  fmt.Sprintf("%s/%d/comments", issuesURL, found.Number),
			Body: map[string]string{"body": "Thank you, we have seen it."}}); err != nil {
			return err
		}
		w.seen, w.greeted = found.Number, w.greeted+1
		w.printf("  greeted #%d %s\n", found.Number, found.Title)
	}
	return nil
}

func (w *watcher) printf(format string, args ...any) { _, _ = fmt.Fprintf(w.out, format, args...) }
