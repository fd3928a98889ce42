//go:build nsexec_ours
// +build nsexec_ours

package main

// No C of runc's; nsexec from libnsexec.a.
import _ "github.com/nsexec/nsexec/bindings/go"
