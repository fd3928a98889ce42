//go:build libcontainer_1_1
// +build libcontainer_1_1

package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"
)

type (
	container = libcontainer.Container
	process   = libcontainer.Process
)

// The Go code of `runc init`, as in the main package of runc 1.1.
func init() {
	if len(os.Args) < 2 || os.Args[1] != "init" {
		return
	}
	runtime.GOMAXPROCS(1)
	runtime.LockOSThread()
	level, err := strconv.Atoi(os.Getenv("_LIBCONTAINER_LOGLEVEL"))
	if err != nil {
		panic(err)
	}
	pipe, err := strconv.Atoi(os.Getenv("_LIBCONTAINER_LOGPIPE"))
	if err != nil {
		panic(err)
	}
	logrus.SetLevel(logrus.Level(level))
	logrus.SetOutput(os.NewFile(uintptr(pipe), "logpipe"))
	logrus.SetFormatter(new(logrus.JSONFormatter))
	logrus.Debug("child process in init()")
	factory, err := libcontainer.New("")
	if err == nil {
		err = factory.StartInitialization()
	}
	// The parent receives the error through the init pipe.
	if err != nil {
		os.Exit(1)
	}
	panic("the container's command was not executed")
}

func newContainer(root, id string, config *configs.Config) (container, error) {
	var options []func(*libcontainer.LinuxFactory) error
	if path, err := exec.LookPath("newuidmap"); err == nil {
		options = append(options, libcontainer.NewuidmapPath(path))
	}
	if path, err := exec.LookPath("newgidmap"); err == nil {
		options = append(options, libcontainer.NewgidmapPath(path))
	}
	factory, err := libcontainer.New(root, options...)
	if err != nil {
		return nil, err
	}
	return factory.Create(id, config)
}

func newProcess(spec *specs.Process) (*process, error) {
	made := &process{
		Args:            spec.Args,
		Env:             spec.Env,
		Cwd:             spec.Cwd,
		User:            fmt.Sprintf("%d:%d", spec.User.UID, spec.User.GID),
		NoNewPrivileges: &spec.NoNewPrivileges,
		Capabilities:    capabilities(spec),
	}
	for _, gid := range spec.User.AdditionalGids {
		made.AdditionalGroups = append(made.AdditionalGroups, strconv.Itoa(int(gid)))
	}
	return made, nil
}
