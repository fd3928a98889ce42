// Package runc is the binding for a program that is built on runc's libcontainer: package nsenter, and a check that the
// build tag matches this libcontainer. A program imports it for its effect, instead of runc's libcontainer/nsenter:
//
//	import _ "github.com/nsexec/nsexec/bindings/go/runc"
//
// Each file uses an identifier of libcontainer that the other release lines of runc do not define. With a wrong build tag
// the compiler reports, for example:
//
//	build_tag_is_for_runc_1_1.go:11:24: undefined: libcontainer.MountSourcesAttr
//
// The file's name contains the release line that the tag is for. bindings/go/README.md lists the tags.
//
// This module does not require runc, so that it works with every version: the program's own go.mod selects the version of
// libcontainer.
package runc

import _ "github.com/nsexec/nsexec/bindings/go"
