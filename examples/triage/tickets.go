package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Ticket is one support ticket, a line of the input.
type Ticket struct {
	ID      string `json:"id"`
	From    string `json:"from"`
	Subject string `json:"subject"`
	Body    string `json:"body"`
}

// maxLine is the longest line that is read; a longer one is skipped like any malformed one.
const maxLine = 64 << 10

// readTickets reads JSON Lines. A line that is no ticket is told to skip with its number, and left out; empty lines do not
// count.
func readTickets(r io.Reader, skip func(line int, problem error)) (tickets []Ticket, skipped int, err error) {
	reader := bufio.NewReaderSize(r, maxLine)
	seen := map[string]int{}
	for number := 1; ; number++ {
		line, tooLong, readErr := readLine(reader)
		if readErr != nil && !errors.Is(readErr, io.EOF) {
			return nil, skipped, fmt.Errorf("reading tickets, line %d: %w", number, readErr)
		}
		if len(bytes.TrimSpace(line)) > 0 || tooLong {
			ticket, problem := parseTicket(line, tooLong)
			if problem == nil && seen[ticket.ID] > 0 {
				problem = fmt.Errorf("ticket %s stands on line %d already", ticket.ID, seen[ticket.ID])
			}
			if problem != nil {
				skip(number, problem)
				skipped++
			} else {
				seen[ticket.ID] = number
				tickets = append(tickets, ticket)
			}
		}
		if errors.Is(readErr, io.EOF) {
			return tickets, skipped, nil
		}
	}
}

// readLine returns one line; of one that is too long, nothing but the fact.
func readLine(r *bufio.Reader) (line []byte, tooLong bool, err error) {
	line, err = r.ReadSlice('\n')
	line = bytes.Clone(line)
	for errors.Is(err, bufio.ErrBufferFull) {
		tooLong = true
		_, err = r.ReadSlice('\n')
	}
	return line, tooLong, err
}

func parseTicket(line []byte, tooLong bool) (Ticket, error) {
	var t Ticket
	if tooLong {
		return t, fmt.Errorf("longer than %d bytes", maxLine)
	}
	if !utf8.Valid(line) {
		return t, errors.New("not valid UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(line))
	if err := dec.Decode(&t); err != nil {
		return t, fmt.Errorf("not a ticket in JSON: %w", err)
	}
	if dec.More() {
		return t, errors.New("more than one JSON value")
	}
	if strings.TrimSpace(t.ID) == "" {
		return t, errors.New(`field "id" is missing or empty`)
	}
	if strings.TrimSpace(t.Subject) == "" {
		return t, errors.New(`field "subject" is missing or empty`)
	}
	return t, nil
}
