package main

import (
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runtime-spec/specs-go"
)

func capabilities(spec *specs.Process) *configs.Capabilities {
	if spec.Capabilities == nil {
		return nil
	}
	return &configs.Capabilities{
		Bounding:    spec.Capabilities.Bounding,
		Effective:   spec.Capabilities.Effective,
		Inheritable: spec.Capabilities.Inheritable,
		Permitted:   spec.Capabilities.Permitted,
		Ambient:     spec.Capabilities.Ambient,
	}
}
