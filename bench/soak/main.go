// Command soak runs the mock at full load for some minutes and shows whether its memory stays flat.
//
//	go run ./bench/soak [-for 10m] [-workers 16] [-every 10s] [-hours 4]
//
// The mock, its clients and the services behind it are in this one process. The workers open Missions one after the other, do in
// each what an agent does (proxied calls, a model, a drop-off, a skill, an intent, delegation, checkpoints), revoke some, and
// read what there is to read. The mock's clock is moved on by some hours a minute, so that what is kept for a day falls due as well.
//
// Every line shows the process: resident memory, heap in use after a collection, its part that is the audit log, the rest, and
// goroutines. The audit log is append-only and grows by nature; the verdict is about the rest of the heap: flat is a slope of less
// than 2 % a minute over the second half. It ends with status 1 when it is not flat, or when any call failed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	runtime.MemProfileRate = 16 << 10 // fine enough to tell the audit log's part
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := soak(ctx)
	stop()
	if err != nil {
		slog.Error("soak failed", "error", err)
		os.Exit(1)
	}
}

const flat = 0.02 // of the heap, a minute

func soak(ctx context.Context) error {
	length := flag.Duration("for", 10*time.Minute, "how long")
	workers := flag.Int("workers", 16, "Missions at a time")
	every := flag.Duration("every", 10*time.Second, "between two lines")
	hours := flag.Float64("hours", 4, "by which the mock's clock is moved on, a minute")
	flag.Parse()
	if *workers < 1 || *every <= 0 || *length < 4**every || *hours < 0 {
		return errors.New("-workers must be at least 1, -for at least four times -every, -hours not negative")
	}
	w, err := newWorld(ctx)
	if err != nil {
		return err
	}
	defer w.close()
	running, cancel := context.WithTimeout(ctx, *length)
	defer cancel()
	var wg sync.WaitGroup
	var missions, failures atomic.Int64
	for i := range *workers {
		wg.Go(func() {
			for n := i; running.Err() == nil; n++ {
				if runErr := w.mission(ctx, i, n); runErr != nil { // a Mission that was begun is ended: only real failures show
					if failures.Add(1) <= 10 {
						slog.Error("a Mission failed", "error", runErr)
					}
				}
				missions.Add(1)
			}
		})
	}
	fmt.Printf("%8s %9s %10s %8s %9s %9s %9s %10s\n", "time", "Missions", "requests", "RSS MB", "heap MB", "audit MB", "rest MB", "goroutines")
	var lines []line
	began, ticks := time.Now(), time.NewTicker(*every)
	defer ticks.Stop()
	for running.Err() == nil {
		select {
		case <-ticks.C:
			w.srv.Advance(time.Duration(*hours * float64(time.Hour) * every.Minutes()))
			l := measure()
			l.at = time.Since(began)
			lines = append(lines, l)
			fmt.Printf("%8s %9d %10d %8.0f %9.1f %9.1f %9.1f %10d\n", l.at.Round(time.Second), missions.Load(), w.srv.Requests(),
				l.rss/1e6, l.heap/1e6, l.audit/1e6, (l.heap-l.audit)/1e6, l.goroutines)
		case <-running.Done():
		}
	}
	wg.Wait()
	if err = w.verify(ctx); err != nil {
		return err
	}
	growth := slope(lines[len(lines)/2:])
	fmt.Printf("\n%d Missions, %d requests, %d failures; without the audit log the heap grows by %.2f %% a minute\n",
		missions.Load(), w.srv.Requests(), failures.Load(), growth*100)
	switch {
	case failures.Load() > 0:
		return errors.New("verdict: there were failures")
	case growth > flat:
		return errors.New("verdict: memory is not flat")
	}
	fmt.Println("verdict: flat, no failure")
	return nil
}

// line is the process at one moment.
type line struct {
	at               time.Duration
	rss, heap, audit float64
	goroutines       int
}

func measure() line {
	runtime.GC()
	runtime.GC() // the profile is that of the last collection but one
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return line{rss: resident(), heap: float64(m.HeapAlloc), audit: auditLog(), goroutines: runtime.NumGoroutine()}
}

// resident is the process's resident memory; 0 where /proc does not tell.
func resident() float64 {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	var size, pages float64
	if _, err = fmt.Sscan(string(text), &size, &pages); err != nil {
		return 0
	}
	return pages * float64(os.Getpagesize())
}

// auditLog is how much of the heap the audit log holds: what was allocated to record rows, by the memory profile, and is in use.
func auditLog() (bytes float64) {
	n, _ := runtime.MemProfile(nil, false)
	records := make([]runtime.MemProfileRecord, n+100)
	n, ok := runtime.MemProfile(records, false)
	if !ok {
		return 0
	}
	for _, r := range records[:n] {
		if r.InUseObjects() == 0 || !recordsRow(r.Stack()) {
			continue
		}
		average := float64(r.InUseBytes()) / float64(r.InUseObjects())
		bytes += float64(r.InUseBytes()) / (1 - math.Exp(-average/float64(runtime.MemProfileRate))) // small objects are sampled seldom
	}
	return bytes
}

func recordsRow(stack []uintptr) bool {
	frames := runtime.CallersFrames(stack)
	for {
		frame, more := frames.Next()
		if strings.HasSuffix(frame.Function, ".(*operator).record") || strings.HasSuffix(frame.Function, ".payloadHash") {
			return true
		}
		if !more {
			return false
		}
	}
}

// slope is by how much of itself the heap without the audit log grows a minute: a line through all points.
func slope(lines []line) float64 {
	var x, y, xx, xy float64
	n := float64(len(lines))
	for _, l := range lines {
		minute, rest := l.at.Minutes(), l.heap-l.audit
		x, y, xx, xy = x+minute, y+rest, xx+minute*minute, xy+minute*rest
	}
	return (n*xy - x*y) / (n*xx - x*x) / (y / n)
}
