//go:build linux && cgo && nsexec_v1_0
// +build linux,cgo,nsexec_v1_0

package runc

import "github.com/opencontainers/runc/libcontainer"

// This type is not defined in runc 1.1.0 and later.
const _ = libcontainer.ErrorCode(0)

// Not defined before runc 1.0.0-rc6, where its name is RootlessAttr.
const _ = libcontainer.RootlessEUIDAttr
