// Package nsenter brings a runtime's init into its namespaces before Go starts. It replaces runc's libcontainer/nsenter.
// A program imports it for its effect; it has no functions to call:
//
//	import _ "github.com/nsexec/nsexec/bindings/go"
//
// A program that imports it runs nsexec() from libnsexec.a as an ELF constructor. If _LIBCONTAINER_INITPIPE is not in the
// environment, nsexec() returns at once. Otherwise the process becomes stage 0 of the bootstrap. Of the three stages only
// the last one, the container's init, reaches Go's runtime.
//
// A program that is built on libcontainer imports .../bindings/go/runc, which also checks the build tag.
//
// At most one build tag selects the release line of runc that the parent process is from:
//
//	(none)       runc 1.2.0 or later
//	nsexec_v1_1  runc 1.1.0 to 1.1.15
//	nsexec_v1_0  runc 1.0.0-rc94 to 1.0.3
//	nsexec_seed  runc of 2018, before 1.0.0-rc6
//
// pkg-config must find nsexec.pc: set PKG_CONFIG_PATH to the folder that crates/nsexec-capi/build has written.
package nsenter
