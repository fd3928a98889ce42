//go:build linux && cgo && !nsexec_v1_1 && !nsexec_v1_0 && !nsexec_seed
// +build linux,cgo,!nsexec_v1_1,!nsexec_v1_0,!nsexec_seed

package runc

import "github.com/opencontainers/runc/libcontainer"

// Not defined before runc 1.2.0.
const _ = libcontainer.TimeOffsetsAttr
