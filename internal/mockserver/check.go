package mockserver

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// The helpers below refuse a bad field; they are combined with firstError, so that a handler lists its rules in a row.

func firstError(errs ...*apiError) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// filled refuses an empty string.
func filled(field, value string) *apiError {
	if strings.TrimSpace(value) == "" {
		return invalid(field, value, "a non-empty string")
	}
	return nil
}

// atMost refuses a string of more than n characters.
func atMost(field, value string, n int) *apiError {
	if count := utf8.RuneCountInString(value); count > n {
		err := invalid(field, value, fmt.Sprintf("at most %d characters", n))
		err.details["length"] = count
		return err
	}
	return nil
}

// listAtMost refuses a list that is too long or holds an empty or over-long string.
func listAtMost(field string, values []string, n, length int) *apiError {
	if len(values) > n {
		return invalid(field, fmt.Sprintf("a list of %d", len(values)), fmt.Sprintf("a list of at most %d", n))
	}
	for i, v := range values {
		at := fmt.Sprintf("%s[%d]", field, i)
		if err := filled(at, v); err != nil {
			return err
		}
		if err := atMost(at, v, length); err != nil {
			return err
		}
	}
	return nil
}

// oneOf refuses a value outside an enumeration; the empty value stands for "not given".
func oneOf[T ~string](field string, value T, allowed ...T) *apiError {
	if value == "" {
		return nil
	}
	return chosen(field, value, allowed...)
}

// chosen refuses a value outside an enumeration, the empty one too.
func chosen[T ~string](field string, value T, allowed ...T) *apiError {
	if slices.Contains(allowed, value) {
		return nil
	}
	names := make([]string, len(allowed))
	for i, a := range allowed {
		names[i] = string(a)
	}
	return invalid(field, string(value), "one of "+strings.Join(names, ", "))
}

// within refuses a number outside its bounds.
func within(field string, value, low, high int) *apiError {
	if value < low || value > high {
		return invalid(field, value, fmt.Sprintf("%d to %d", low, high))
	}
	return nil
}

// lasting refuses a duration outside its bounds; zero stands for "not given".
func lasting(field string, value, low, high time.Duration) *apiError {
	if value != 0 && (value < low || value > high) {
		return invalid(field, int(value/time.Second), fmt.Sprintf("%d to %d seconds", int(low/time.Second), int(high/time.Second)))
	}
	return nil
}
