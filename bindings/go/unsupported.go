//go:build !linux || !cgo
// +build !linux !cgo

package nsenter

// Without the constructor a container would start in the namespaces of its parent. Therefore this build must fail.
const dialect = this_package_needs_linux_and_cgo
