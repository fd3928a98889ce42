// A client of libcontainer that executes commands line by line, and holds one container.
//
// Runs as a Go runtime does. tests/clients starts it as root or as an ordinary user; `argv[1] == "init"`
// makes it `runc init`, in which nsexec has run before any Go code. The build selects the nsexec: bindings/go
// with the tag nsexec_ours, runc's own C without a tag. It writes below its state directory, into the cgroups
// of the specification, and to the mount points of the specification.
//
// It reads one JSON object per line from standard input, and answers each with one line on standard output.
// Errors are answers too.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"
)

// A command. Do selects the fields that are used.
type command struct {
	Do string

	// create
	Root, ID, Log string
	Spec          *specs.Spec
	// create and exec: the process, and the files for its standard descriptors.
	Process               *specs.Process
	Stdin, Stdout, Stderr string
	// The number of further descriptors for the process, as with runc's --preserve-fds.
	Extra int
	// wait and signal
	Pid    int
	Signal int
}

// An answer.
type answer struct {
	Pid    int    `json:"pid,omitempty"`
	Status string `json:"status,omitempty"`
	Error  string `json:"error,omitempty"`
}

// The state between commands.
type client struct {
	container container
	started   map[int]*process
}

func main() {
	held := client{started: map[int]*process{}}
	lines := bufio.NewReader(os.Stdin)
	answers := json.NewEncoder(os.Stdout)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var told command
		var reply answer
		if err := json.Unmarshal(line, &told); err != nil {
			reply.Error = "not understood: " + err.Error()
		} else if err := held.do(&told, &reply); err != nil {
			reply.Error = err.Error()
		}
		if err := answers.Encode(reply); err != nil {
			os.Exit(1)
		}
	}
}

func (c *client) do(told *command, reply *answer) error {
	switch told.Do {
	case "create":
		return c.create(told, reply)
	case "exec":
		return c.start(told, reply, false)
	case "start":
		return c.container.Exec()
	case "wait":
		return c.wait(told.Pid, reply)
	case "signal":
		started, err := c.find(told.Pid)
		if err != nil {
			return err
		}
		return started.Signal(syscall.Signal(told.Signal))
	case "delete":
		return c.container.Destroy()
	}
	return fmt.Errorf("no command: %q", told.Do)
}

// Creates a container whose init waits, as after `runc create`.
func (c *client) create(told *command, reply *answer) error {
	log, err := os.OpenFile(told.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	logrus.SetOutput(log)
	logrus.SetFormatter(new(logrus.JSONFormatter))
	logrus.SetLevel(logrus.DebugLevel)
	config, err := specconv.CreateLibcontainerConfig(&specconv.CreateOpts{
		CgroupName:      told.ID,
		Spec:            told.Spec,
		RootlessEUID:    os.Geteuid() != 0,
		RootlessCgroups: os.Geteuid() != 0,
	})
	if err != nil {
		return err
	}
	if c.container, err = newContainer(told.Root, told.ID, config); err != nil {
		return err
	}
	told.Process = told.Spec.Process
	return c.start(told, reply, true)
}

func (c *client) start(told *command, reply *answer, isInit bool) error {
	if c.container == nil {
		return errors.New("no container")
	}
	started, err := newProcess(told.Process)
	if err != nil {
		return err
	}
	started.Init = isInit
	started.LogLevel = "5" // logrus's number for debug
	var files [3]*os.File
	for i, name := range []string{told.Stdin, told.Stdout, told.Stderr} {
		flags := os.O_RDONLY
		if i > 0 {
			flags = os.O_CREATE | os.O_WRONLY | os.O_APPEND
		}
		if files[i], err = os.OpenFile(name, flags, 0o666); err != nil {
			return err
		}
		defer files[i].Close()
	}
	started.Stdin, started.Stdout, started.Stderr = files[0], files[1], files[2]
	for i := 0; i < told.Extra; i++ {
		file, err := os.Open("/dev/null")
		if err != nil {
			return err
		}
		defer file.Close()
		started.ExtraFiles = append(started.ExtraFiles, file)
	}
	if isInit {
		err = c.container.Start(started)
	} else {
		err = c.container.Run(started)
	}
	if err != nil {
		return err
	}
	if reply.Pid, err = started.Pid(); err != nil {
		return err
	}
	c.started[reply.Pid] = started
	return nil
}

func (c *client) find(pid int) (*process, error) {
	started := c.started[pid]
	if started == nil {
		return nil, fmt.Errorf("no process %d of ours", pid)
	}
	return started, nil
}

func (c *client) wait(pid int, reply *answer) error {
	started, err := c.find(pid)
	if err != nil {
		return err
	}
	state, err := started.Wait()
	if state == nil {
		return err
	}
	// libcontainer returns a status other than 0 as an error; here it is the answer.
	reply.Status = state.String()
	return nil
}
