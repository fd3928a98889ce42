//go:build !nsexec_seed
// +build !nsexec_seed

package nsenter

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"testing"
)

// Checks the log records of all three stages. The dialect of 2018 has no log pipe.
func TestLogIsRecords(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	p := start(t, own(), write)
	write.Close()

	records := 0
	lines := json.NewDecoder(read)
	lines.DisallowUnknownFields()
	for {
		var record struct{ Level, Msg string }
		// End of file is reached when all three stages have closed the pipe.
		if err := lines.Decode(&record); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal("a record:", err)
		}
		if record.Level == "" || record.Msg == "" {
			t.Errorf("a record without words: %+v", record)
		}
		records++
	}
	if records == 0 {
		t.Error("no record")
	}
	if err := p.command.Wait(); err != nil {
		t.Fatal("stage 0:", err)
	}
	p.reap()
}
