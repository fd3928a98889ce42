//go:build linux && cgo && nsexec_seed
// +build linux,cgo,nsexec_seed

package runc

import "github.com/opencontainers/runc/libcontainer"

// Not defined from runc 1.0.0-rc6 on: it was renamed RootlessEUIDAttr.
const _ = libcontainer.RootlessAttr
