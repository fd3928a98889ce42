//go:build nsexec_ours
// +build nsexec_ours

package main

// nsexec from libnsexec.a, without runc's C.
import _ "github.com/nsexec/nsexec/bindings/go"
