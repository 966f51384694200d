// Package docs is the code of the pages in the folder docs at the project's root, compiled, run and checked. A page shows
// excerpts of these files; TestExcerpts fails for a block of Go that is nowhere in the project.
package docs
