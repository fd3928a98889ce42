//go:build linux && cgo && nsexec_seed
// +build linux,cgo,nsexec_seed

package nsenter

// #cgo pkg-config: nsexec
// void nsexec_seed(void); static void __attribute__((constructor)) start(void) { nsexec_seed(); }
import "C"

// The parent is runc of 2018, before 1.0.0-rc6.
const dialect = "seed"
