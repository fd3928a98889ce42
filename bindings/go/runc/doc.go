// Package runc is the binding for a program that is built on runc's libcontainer: package nsenter, and a check that the
// build tag is the one for this libcontainer. It is imported for its effect, in the place of runc's libcontainer/nsenter:
//
//	import _ "github.com/nsexec/nsexec/bindings/go/runc"
//
// Each file here uses one identifier of libcontainer that the other lines of runc do not define. With a wrong build tag
// the compiler reports, for example:
//
//	build_tag_is_for_runc_1_1.go:11:24: undefined: libcontainer.MountSourcesAttr
//
// The file's name says which runc the tag is for. bindings/go/README.md has the tag of each line.
//
// This module does not require runc, so that it works with every version: libcontainer comes from the program's own
// go.mod.
package runc

import _ "github.com/nsexec/nsexec/bindings/go"
