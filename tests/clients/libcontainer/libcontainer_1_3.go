//go:build !libcontainer_1_1
// +build !libcontainer_1_1

package main

import (
	"os"

	// Without this import a container with device rules fails.
	_ "github.com/opencontainers/cgroups/devices"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runtime-spec/specs-go"
)

type (
	container = *libcontainer.Container
	process   = libcontainer.Process
)

// The Go code of `runc init`.
func init() {
	if len(os.Args) > 1 && os.Args[1] == "init" {
		libcontainer.Init()
	}
}

// This version finds newuidmap and newgidmap itself.
func newContainer(root, id string, config *configs.Config) (container, error) {
	return libcontainer.Create(root, id, config)
}

func newProcess(spec *specs.Process) (*process, error) {
	made := &process{
		Args:            spec.Args,
		Env:             spec.Env,
		Cwd:             spec.Cwd,
		UID:             int(spec.User.UID),
		GID:             int(spec.User.GID),
		NoNewPrivileges: &spec.NoNewPrivileges,
		Capabilities:    capabilities(spec),
	}
	for _, gid := range spec.User.AdditionalGids {
		made.AdditionalGroups = append(made.AdditionalGroups, int(gid))
	}
	return made, nil
}
