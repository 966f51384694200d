package pii

import "slices"

// national is a country's number.
type national struct {
	country string
	forms   []written
	check   func(c []byte) bool
}

// written is one way to write a number: d stands for a digit, a for a letter, x for either, ~ for a space or a hyphen, and
// everything else for itself. Base is the confidence that comes from the form and the checksum alone: some 0.2 for digits
// of which one in ten is right, 0.5 for those of which less than one in a thousand is, and more when the form itself says
// what it is. Below [DefaultThreshold] a word near the number has to say the rest.
type written struct {
	as   string
	base float64
}

// nationals are the numbers that are known.
var nationals = slices.Concat(europeans, overseas)
