//go:build linux && cgo && nsexec_seed
// +build linux,cgo,nsexec_seed

package runc

import "github.com/opencontainers/runc/libcontainer"

// Not defined in runc 1.0.0-rc6 and later, where its name is RootlessEUIDAttr.
const _ = libcontainer.RootlessAttr
