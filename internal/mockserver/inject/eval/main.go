// Command eval measures the injection scanner on labelled texts: for each set, how many attacks it finds and how many
// benign texts it takes for attacks. See README.md beside it.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/getstack-go/stack/internal/mockserver/inject"
)

// sample is a labelled text.
type sample struct {
	Set    string `json:"set"`
	Attack bool   `json:"attack"`
	Text   string `json:"text"`
}

func main() {
	missed := flag.Bool("wrong", false, "print the texts that are judged wrongly, and by which pattern")
	flag.Parse()
	if err := run(os.Stdout, flag.Args(), *missed); err != nil {
		fmt.Fprintln(os.Stderr, "eval:", err)
		os.Exit(1)
	}
}

// run measures the scanner on the files and writes the table.
func run(out io.Writer, files []string, wrong bool) error {
	if len(files) == 0 {
		return fmt.Errorf("usage: eval [-wrong] FILE.jsonl")
	}
	scanner, err := inject.New(inject.DefaultConfig())
	if err != nil {
		return err
	}
	var t table
	for _, file := range files {
		if err := t.addFile(out, scanner, file, wrong); err != nil {
			return err
		}
	}
	return t.write(out)
}

// counts are how many texts of a set had which verdict.
type counts struct {
	set      string
	attack   bool
	verdicts map[inject.Verdict]int
}

type table []*counts

// addFile scans the texts in a file of one JSON object a line.
func (t *table) addFile(out io.Writer, scanner *inject.Scanner, file string, wrong bool) error {
	f, err := os.Open(file) //nolint:gosec // the file that the caller of the command names
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // it was only read
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 4<<20)
	for n := 1; lines.Scan(); n++ {
		var s sample
		if err := json.Unmarshal(lines.Bytes(), &s); err != nil {
			return fmt.Errorf("%s:%d: %w", file, n, err)
		}
		result := scanner.Scan(context.Background(), s.Text)
		t.of(s).verdicts[result.Verdict]++
		if wrong && s.Attack == (result.Verdict == inject.Clean) {
			match := inject.Match{}
			if result.Match != nil {
				match = *result.Match
			}
			text := []rune(s.Text)
			if _, err := fmt.Fprintf(out, "%s:%d: %s: %s by %s %v: %q\n", file, n, s.Set, result.Verdict, match.PatternID,
				match.Layers, string(text[:min(len(text), 300)])); err != nil {
				return err
			}
		}
	}
	return lines.Err()
}

// of returns the counts of a sample's set.
func (t *table) of(s sample) *counts {
	i := slices.IndexFunc(*t, func(c *counts) bool { return c.set == s.Set && c.attack == s.Attack })
	if i < 0 {
		*t = append(*t, &counts{set: s.Set, attack: s.Attack, verdicts: map[inject.Verdict]int{}})
		i = len(*t) - 1
	}
	return (*t)[i]
}

// write writes the table, attacks first, with a sum of each kind.
func (t table) write(out io.Writer) error {
	var rows strings.Builder
	rows.WriteString("| set\t| texts\t| found\t| critical\t|\n| ---\t| ---\t| ---\t| ---\t|\n")
	for _, attack := range []bool{true, false} {
		sum := counts{set: "all benign texts", verdicts: map[inject.Verdict]int{}}
		if attack {
			sum.set = "all attacks"
		}
		for _, c := range t {
			if c.attack != attack {
				continue
			}
			rows.WriteString(c.row())
			for verdict, n := range c.verdicts {
				sum.verdicts[verdict] += n
			}
		}
		rows.WriteString(sum.row())
	}
	w := tabwriter.NewWriter(out, 0, 0, 1, ' ', 0)
	if _, err := io.WriteString(w, rows.String()); err != nil {
		return err
	}
	return w.Flush()
}

// row returns one row: how many were found at all, suspicious or critical, and how many were critical. There is none for a
// set of no texts.
func (c *counts) row() string {
	critical := c.verdicts[inject.Critical]
	found := critical + c.verdicts[inject.Suspicious]
	all := found + c.verdicts[inject.Clean]
	if all == 0 {
		return ""
	}
	share := func(n int) string { return fmt.Sprintf("%d (%.1f %%)", n, 100*float64(n)/float64(all)) }
	return fmt.Sprintf("| %s\t| %d\t| %s\t| %s\t|\n", c.set, all, share(found), share(critical))
}
