//go:build linux && cgo && nsexec_v1_0
// +build linux,cgo,nsexec_v1_0

package runc

import "github.com/opencontainers/runc/libcontainer"

// The type is not defined from runc 1.1.0 on.
const _ = libcontainer.ErrorCode(0)

// Not defined before runc 1.0.0-rc6: it was named RootlessAttr.
const _ = libcontainer.RootlessEUIDAttr
