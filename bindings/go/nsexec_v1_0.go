//go:build linux && cgo && nsexec_v1_0
// +build linux,cgo,nsexec_v1_0

package nsenter

// #cgo pkg-config: nsexec
// void nsexec_v1_0(void); static void __attribute__((constructor)) start(void) { nsexec_v1_0(); }
import "C"

// The parent is runc 1.0.0-rc94 to 1.0.3.
const dialect = "v1_0"
