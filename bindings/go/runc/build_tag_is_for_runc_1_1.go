//go:build linux && cgo && nsexec_v1_1
// +build linux,cgo,nsexec_v1_1

package runc

import "github.com/opencontainers/runc/libcontainer"

// Defined from runc 1.1.0 to 1.1.15 only.
const _ = libcontainer.MountSourcesAttr
