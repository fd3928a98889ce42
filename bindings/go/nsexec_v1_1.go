//go:build linux && cgo && nsexec_v1_1
// +build linux,cgo,nsexec_v1_1

package nsenter

// #cgo pkg-config: nsexec
// void nsexec_v1_1(void); static void __attribute__((constructor)) start(void) { nsexec_v1_1(); }
import "C"

// The parent is runc 1.1.0 to 1.1.15.
const dialect = "v1_1"
