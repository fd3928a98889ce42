package nsenter

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// These tests act as the parent process, as runc does. They make the same checks as runc's own tests of its C code: the
// form of the pid line and of the log records, success and failure. They create network namespaces, which needs root.

// The name of this test binary when it is started as stage 0. Stage 2 then returns into its Go runtime, and exits.
const helper = "nsenter-helper"

func init() {
	if os.Args[0] == helper {
		os.Exit(0)
	}
}

const (
	cloneFlags = 27281
	nsPaths    = 27282
	message    = 62000
)

// Returns one attribute: length and type in host byte order, the value, and zeros up to a multiple of four bytes.
func attribute(number uint16, value []byte) []byte {
	made := make([]byte, 4, 4+len(value)+3)
	binary.LittleEndian.PutUint16(made, uint16(4+len(value)))
	binary.LittleEndian.PutUint16(made[2:], number)
	made = append(made, value...)
	return append(made, make([]byte, (4-len(value)%4)%4)...)
}

// Returns a bootstrap message that creates a network namespace and joins the namespaces of `paths`.
func bootstrap(paths string) []byte {
	flags := make([]byte, 4)
	binary.LittleEndian.PutUint32(flags, syscall.CLONE_NEWNET)
	body := append(attribute(cloneFlags, flags), attribute(nsPaths, append([]byte(paths), 0))...)
	header := make([]byte, 16)
	binary.LittleEndian.PutUint32(header, uint32(16+len(body)))
	binary.LittleEndian.PutUint16(header[4:], message)
	binary.LittleEndian.PutUint16(header[6:], 1)
	return append(header, body...)
}

// The parent's view of a running stage 0.
type parent struct {
	t       *testing.T
	command *exec.Cmd
	init    *os.File
	stderr  bytes.Buffer
}

func start(t *testing.T, paths string, log *os.File) *parent {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a network namespace takes root")
	}
	ends, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal("socketpair:", err)
	}
	ours, theirs := os.NewFile(uintptr(ends[0]), "ours"), os.NewFile(uintptr(ends[1]), "theirs")
	t.Cleanup(func() { ours.Close() })
	p := &parent{t: t, init: ours}
	p.command = &exec.Cmd{
		Path:       "/proc/self/exe",
		Args:       []string{helper},
		ExtraFiles: []*os.File{theirs},
		Env:        []string{"_LIBCONTAINER_INITPIPE=3"},
		Stderr:     &p.stderr,
	}
	if log != nil {
		p.command.ExtraFiles = append(p.command.ExtraFiles, log)
		p.command.Env = append(p.command.Env, "_LIBCONTAINER_LOGPIPE=4")
	}
	if err := p.command.Start(); err != nil {
		t.Fatal("the helper does not start:", err)
	}
	theirs.Close()
	if _, err := ours.Write(bootstrap(paths)); err != nil {
		t.Fatal("the message:", err)
	}
	if dialect == "v1_1" || dialect == "v1_0" {
		ready := []byte{1}
		if _, err := io.ReadFull(ours, ready); err != nil || ready[0] != 0 {
			t.Fatalf("the ready byte: %v, %v", ready, err)
		}
	}
	return p
}

// Reads the pid line, which is one object with exactly two keys, and reaps both processes.
func (p *parent) reap() {
	p.t.Helper()
	first, second := "stage1_pid", "stage2_pid"
	if dialect == "seed" {
		first, second = "pid_first", "pid"
	}
	var pids map[string]int
	if err := json.NewDecoder(p.init).Decode(&pids); err != nil {
		p.t.Fatal("the pid line:", err)
	}
	if len(pids) != 2 || pids[first] <= 0 || pids[second] <= 0 {
		p.t.Fatalf("the pid line: %v", pids)
	}
	for _, name := range []string{first, second} {
		var status syscall.WaitStatus
		if _, err := syscall.Wait4(pids[name], &status, 0, nil); err != nil {
			p.t.Fatalf("%s: %v", name, err)
		}
		if !status.Exited() || status.ExitStatus() != 0 {
			p.t.Errorf("%s: wait status %#x", name, status)
		}
	}
}

// Returns a path list with this process's own pid namespace, which it may join.
func own() string {
	return fmt.Sprintf("pid:/proc/%d/ns/pid", os.Getpid())
}

func TestJoinsWhatIsThere(t *testing.T) {
	p := start(t, own(), nil)
	if err := p.command.Wait(); err != nil {
		t.Fatalf("stage 0: %v: %s", err, &p.stderr)
	}
	p.reap()
}

// Checks that stage 0 fails: exit status 1, no pid line, and the cause in the log. Without a log pipe the cause is on
// standard error, except in dialect 1.0, which then writes nothing.
func refused(t *testing.T, paths, cause string) {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	log := write
	if dialect != "v1_0" {
		log = nil
	}
	p := start(t, paths, log)
	write.Close()
	var status *exec.ExitError
	if err := p.command.Wait(); !errors.As(err, &status) || status.ExitCode() != 1 {
		t.Errorf("stage 0: %v", err)
	}
	if rest, err := io.ReadAll(p.init); len(rest) != 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("on the init pipe: %q, %v", rest, err)
	}
	logged, err := io.ReadAll(read)
	if err != nil {
		t.Fatal(err)
	}
	said := p.stderr.String() + string(logged)
	if !strings.Contains(said, cause) {
		t.Errorf("%q does not name %q", said, cause)
	}
}

func TestRefusesAPathThatIsNotThere(t *testing.T) {
	refused(t, "pid:/proc/-1/ns/pid", "/proc/-1/ns/pid")
}

func TestRefusesAPathOfAnotherKind(t *testing.T) {
	refused(t, fmt.Sprintf("net:/proc/%d/ns/pid", os.Getpid()), "net")
}

// Without an init pipe the constructor returns at once and writes nothing.
func TestDoesNothingWithoutAnInitPipe(t *testing.T) {
	command := exec.Command("/proc/self/exe")
	command.Args[0] = helper
	command.Env = []string{"_LIBCONTAINER_LOGLEVEL=5"}
	if out, err := command.CombinedOutput(); err != nil || len(out) != 0 {
		t.Errorf("%v: %s", err, out)
	}
}
