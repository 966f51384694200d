package stack

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"time"
)

// The wire counts durations in whole seconds (some in milliseconds) and dates the audit log in epoch milliseconds; the
// exported structs hold time.Duration and time.Time. The types here are the one place where the two meet: a struct with
// such a field shadows it in its MarshalJSON and UnmarshalJSON with the matching type of this file.

// seconds is a duration that travels as a whole number of seconds.
type seconds time.Duration

func (d seconds) MarshalJSON() ([]byte, error) {
	if time.Duration(d)%time.Second != 0 {
		return nil, fmt.Errorf("%s is not a whole number of seconds, the unit of the wire", time.Duration(d))
	}
	return strconv.AppendInt(nil, int64(time.Duration(d)/time.Second), 10), nil
}

func (d *seconds) UnmarshalJSON(data []byte) error {
	v, err := scaled(data, time.Second)
	*d = seconds(v)
	return err
}

// milliseconds is a duration that travels as a number of milliseconds.
type milliseconds time.Duration

func (d milliseconds) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, float64(d)/float64(time.Millisecond), 'f', -1, 64), nil
}

func (d *milliseconds) UnmarshalJSON(data []byte) error {
	v, err := scaled(data, time.Millisecond)
	*d = milliseconds(v)
	return err
}

// epochMillis is a moment that travels as milliseconds since the Unix epoch; null is the zero time.
type epochMillis time.Time

func (t epochMillis) IsZero() bool { return time.Time(t).IsZero() }

func (t epochMillis) MarshalJSON() ([]byte, error) {
	if t.IsZero() {
		return []byte("null"), nil
	}
	return strconv.AppendInt(nil, time.Time(t).UnixMilli(), 10), nil
}

func (t *epochMillis) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		*t = epochMillis{}
		return nil
	}
	var ms int64
	if err := json.Unmarshal(data, &ms); err != nil {
		return err
	}
	*t = epochMillis(time.UnixMilli(ms).UTC())
	return nil
}

// scaled reads a JSON number of units; null is zero.
func scaled(data []byte, unit time.Duration) (time.Duration, error) {
	if string(data) == "null" {
		return 0, nil
	}
	var n float64
	if err := json.Unmarshal(data, &n); err != nil {
		return 0, err
	}
	v := n * float64(unit)
	if math.Abs(v) >= math.MaxInt64 {
		return 0, fmt.Errorf("%s is too long for a duration", data)
	}
	return time.Duration(math.Round(v)), nil
}

// marshalJSON encodes v as the wire wants it: compact, with <, > and & as they are. (contract: endpoints 1.1)
func marshalJSON(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}
