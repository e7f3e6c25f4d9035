//go:build !linux

package main

// takeTitle returns nil: the title of a process cannot be set here.
func takeTitle() func(title string) { return nil }
