"""The parent or one of the stages dies at every system call: no process stays alive, and none hangs.

Runs as root, as the parent of `nsexec init` and as its tracer, so that a death can be placed exactly.
"""

import contextlib
import os
import re
import signal
import unittest

import fixture
import parent
from parent import FLAG, message
from tracer import Stepper

FIVE = sum(FLAG[kind] for kind in ("pid", "mnt", "net", "ipc", "uts"))
RANGE = f"0 {fixture.FIRST} 1000\n"
EVERYTHING = message(sum(FLAG.values()) - FLAG["uts"] - FLAG["net"], paths="uts:/proc/self/ns/uts", uidmap=RANGE,
                     gidmap=RANGE, setgroup=True, oom="10", timens="boottime 5 0\n")


class TheParent(fixture.ProtocolTest):
    def test_before_the_message(self):
        run = self.start()
        run.close_init()
        self.assertRefusedWithoutInit(run, "failed to read netlink header")

    def test_after_part_of_the_message(self):
        data = message(FIVE, oom="10")
        for size in (1, 15, 16, 17, len(data) - 1):
            run = self.start()
            run.send(data[:size])
            run.close_init()
            self.assertRefusedWithoutInit(run, "failed to read netlink (header|payload)")

    def assertRefusedWithoutInit(self, run, words):
        self.assertEqual(run.wait_stage0(), 1)
        run.finish()
        self.assertEqual(len(run.fatal()), 1)
        self.assertRegex(run.fatal()[0].text, words)

    def test_right_after_the_message(self):
        """The pid line has no reader: SIGPIPE must not kill stage 0 silently, and stages 1 and 2 must end."""
        for data in (message(FIVE), EVERYTHING):
            run = self.start()
            run.send(data)
            run.close_init()
            self.assertEqual(run.wait_stage0(), 1)
            run.finish()
            # Stage 0 notices in its wait for stage 1 or at its write of the pid line; stage 1 may notice
            # first.
            self.assertRegex(run.fatal()[0].text, r"^(failed to sync with runc: write\(pid-JSON\)|the launcher is gone)")
            self.assertNotIn("<= nsexec container setup", run.texts("2"))

    def test_after_the_message_with_its_log_pipe(self):
        run = self.start(log_reader=None)
        run.send(EVERYTHING)
        run.close_init()
        self.assertEqual(run.wait_stage0(), 1)
        run.finish()

    def test_at_every_system_call(self):
        """The calls of all stages are counted together."""
        moments = 0
        while True:
            moments += 1
            state = {"left": moments}

            def at(stage, count, pid):
                state["left"] -= 1
                if state["left"] == 0:
                    run.close_init()
            run = self.start()
            Stepper(run, at)
            run.try_send(EVERYTHING)
            run.wait_stage0()
            run.finish()
            self.assertIn(run.statuses[run.pid], (0, 1))
            if run.statuses[run.pid] == 1:
                self.assertTrue(run.fatal(), run.describe())
                # Stage 0 waits for the last message of stage 2, which can finish before stage 0 kills it.
                if not re.match(r"the launcher is gone .*: failed to sync with child: ", run.fatal()[0].text):
                    self.assertNotIn("<= nsexec container setup", run.texts("2"))
            if state["left"] > 0:
                break
        print(f"\n  the parent died at {moments - 1} moments", flush=True)
        self.assertGreater(moments, 100)


class StoppedStage(fixture.ProtocolTest):
    """One stage is stopped, and later the parent dies: the other stages notice, and end."""

    def sweep(self, victim, every):
        moments, stopped = 1, 0
        while True:
            state = {}

            def at(stage, count, pid):
                if stage == victim and count == moments and not state:
                    state["pid"] = pid
                    return True
                return False
            run = self.start()
            stepper = Stepper(run, at)
            run.try_send(EVERYTHING)
            if victim == 2:  # once the parent has the pids, it must wait for them itself
                run.until(lambda: b"\n" in run.init_bytes or state or run.pid in run.statuses, "the pid line")
            run.until(lambda: state or run.pid in run.statuses, "the stage is stopped, or all is over")
            run.close_init()
            with self.subTest(victim=victim, moment=moments):
                if victim == 0 and state:
                    others = lambda: [pid for pid in stepper.order[1:] if parent.is_alive(pid)]
                    run.until(lambda: not others(), "stages 1 and 2 end")
                    stepper.go_on(state["pid"])
                code = run.wait_stage0()
                state.setdefault("pid")  # no process is stopped from now on
                self.assertIn(code, (0, 1), run.describe())
                # Stage 0 kills the stages whose pid it has and for which it still waits.
                known = {0: False, 1: "stage-1 complete" not in run.texts("0"), 2: b"\n" in run.init_bytes}[victim]
                if state["pid"] is not None and code == 1 and known:
                    run.until(lambda: not parent.is_alive(state["pid"]), "stage 0 ends the stopped one")
                elif state["pid"] is not None and parent.is_alive(state["pid"]):
                    with contextlib.suppress(ProcessLookupError):  # it is being killed
                        stepper.go_on(state["pid"])
                run.finish()
            if state["pid"] is None:
                break
            stopped += 1
            moments += every
        print(f"\n  stage {victim} was stopped at {stopped} moments", flush=True)
        return stopped

    def test_stage_0(self):
        self.assertGreater(self.sweep(0, 5), 8)

    def test_stage_1(self):
        self.assertGreater(self.sweep(1, 5), 8)

    def test_stage_2(self):
        self.assertGreater(self.sweep(2, 3), 5)  # stage 0 does not wait for calls after the last message


class EachStage(fixture.ProtocolTest):
    def sweep(self, victim):
        moments, codes, texts = 0, {}, {}
        while True:
            moments += 1
            state = {"killed": False}

            def at(stage, count, pid):
                if stage == victim and count == moments:
                    state["killed"] = True
                    os.kill(pid, signal.SIGKILL)
            run = self.start()
            stepper = Stepper(run, at)
            run.try_send(EVERYTHING)
            with self.subTest(victim=victim, moment=moments):
                run.wait_stage0()
                run.finish()  # all processes end by themselves, and all pipes are at EOF
                code = run.statuses[run.pid]
                codes[code] = codes.get(code, 0) + 1
                if state["killed"]:
                    self.assertEqual(run.statuses[stepper.order[victim]], -signal.SIGKILL)
                    if code == 0:  # only if the victim had finished its part
                        self.assertRegex(run.init_bytes, parent.Bootstrap.PID_LINE)
                    elif victim != 0:
                        self.assertEqual(code, 1)
                        self.assertTrue(run.fatal(), run.describe())
                        text = re.sub(rf"\b({'|'.join(map(str, stepper.order))})\b", "PID", run.fatal()[0].text)
                        texts.setdefault(text, []).append(moments)
                    if victim == 1 and code != 0:
                        self.assertNotIn("<= nsexec container setup", run.texts("2"))
                else:
                    self.assertEqual(code, 0, run.describe())
            if not state["killed"]:
                break
        print(f"\n  stage {victim} was killed at {moments - 1} moments; stage 0's statuses {codes}", flush=True)
        for text, where in texts.items():
            # the record names the dead stage, not the call that failed
            with self.subTest(text=text, moments=where):
                self.assertRegex(text, f"stage-{victim}|sync with child")
        return moments

    def test_stage_0(self):
        self.assertGreater(self.sweep(0), 40)

    def test_stage_1(self):
        self.assertGreater(self.sweep(1), 40)

    def test_stage_2(self):
        self.assertGreater(self.sweep(2), 20)


if __name__ == "__main__":
    unittest.main()
