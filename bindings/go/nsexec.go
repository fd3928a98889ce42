//go:build linux && cgo && !nsexec_v1_1 && !nsexec_v1_0 && !nsexec_seed
// +build linux,cgo,!nsexec_v1_1,!nsexec_v1_0,!nsexec_seed

package nsenter

// #cgo pkg-config: nsexec
// void nsexec(void); static void __attribute__((constructor)) start(void) { nsexec(); }
import "C"

// The parent is runc 1.2.0 or later. With the build tags of two dialects this constant is defined twice, which does not
// compile.
const dialect = "v1_2"
