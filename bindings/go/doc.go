// Package nsenter brings a runtime's init into its namespaces before Go starts. It is imported for its effect, in the
// place of runc's libcontainer/nsenter, and has nothing to call:
//
//	import _ "github.com/nsexec/nsexec/bindings/go"
//
// A program that imports it runs nsexec() from libnsexec.a as an ELF constructor. Where _LIBCONTAINER_INITPIPE is not in
// the environment that returns at once. Where it is, the process becomes stage 0 of the bootstrap, and of the processes
// that come of it only the container's init reaches Go's runtime.
//
// A program that is built on libcontainer imports .../bindings/go/runc, which also checks the build tag.
//
// The build tag says which line of runc the parent is; there may be one:
//
//	(none)       runc 1.2.0 or later
//	nsexec_v1_1  runc 1.1.0 to 1.1.15
//	nsexec_v1_0  runc 1.0.0-rc94 to 1.0.3
//	nsexec_seed  runc as it was in 2018, before 1.0.0-rc6
//
// pkg-config must find nsexec.pc: PKG_CONFIG_PATH names the folder that capi/build has filled.
package nsenter
