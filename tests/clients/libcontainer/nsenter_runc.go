//go:build !nsexec_ours
// +build !nsexec_ours

package main

// runc's own C.
import _ "github.com/opencontainers/runc/libcontainer/nsenter"
