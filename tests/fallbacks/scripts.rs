//! The launches, as shell scripts. `$N` is the program nsexec, `$CHECK` the command that checks the filter,
//! and `$P` the program of the tests. Each script has an empty working directory.

/// One launch, and the calls that it cannot do without.
pub(crate) struct Script {
    pub(crate) name: &'static str,
    pub(crate) text: &'static str,
    /// The calls without which it may have another result, with a line that names the call.
    pub(crate) needs: &'static [&'static str],
    /// Whether the command checks the filter.
    pub(crate) checks: bool,
    /// Whether it needs mapping tools with their privileges.
    pub(crate) uses_tools: bool,
}

const fn script(name: &'static str, needs: &'static [&'static str], text: &'static str) -> Script {
    Script { name, text, needs, checks: true, uses_tools: false }
}

pub(crate) const SCRIPTS: &[Script] = &[
    script("run", &[], "$N run -r -- sh -c 'id -u; $CHECK'; $N run -f -r -- sh -c 'exit 7'; echo $?"),
    script(
        "in_place",
        &[],
        "echo $$ >pid; exec $N run -r -n -- sh -c 'echo $$ | cmp - pid && echo the same; $CHECK'",
    ),
    script(
        "new_proc",
        &[],
        "$N run -r -p -m --mount-proc -- sh -c 'echo $$; ls -d /proc/[0-9]* | head -1; $CHECK'",
    ),
    script("descriptors", &[], "exec 7</dev/null; $N run -f -r -- sh -c 'ls /proc/self/fd; $CHECK'"),
    script("error", &[], "$CHECK; $N run -f -r -n -- no-such-command; echo $?"),
    script(
        "joined",
        &["openat2"],
        "$N run -r -u -m -- sh -c 'hostname lab; echo >on; exec sleep 100' & until [ -e on ]; do sleep 0.01; done; \
         $N enter -t $! -U -u -- sh -c 'hostname; $CHECK'; $N enter -t $! -a -- sh -c 'hostname; pwd; $CHECK'; \
         { kill $!; wait $!; } 2>&-; echo $?",
    ),
    script(
        "socket",
        &["pidfd_open", "pidfd_getfd"],
        "$CHECK; $N run -r -n -- /usr/bin/python3 -I -S -c 'import socket, time
s = socket.socket(); print(s.fileno(), flush=True); time.sleep(100)' >fd & until [ -s fd ]; do sleep 0.01; done
         $N enter -t $! -U -N $(cat fd) -- sh -c 'grep -c : /proc/net/dev'; { kill $!; wait $!; } 2>&-; echo $?",
    ),
    script(
        "pinned",
        &["open_tree", "move_mount", "openat2"],
        "$N run -r -m -n -- sh -c '$CHECK; $N pin -r -n -u pins; ls pins; \
         ! test -e pins/net || $N enter --user=pins/user --net=pins/net -- sh -c \"id -u; $CHECK\"; \
         ! test -e pins || $N pin --release pins; ls'",
    ),
    script("directory", &["openat2"], "$N run -f -r -R / -w /usr -- sh -c 'pwd; $CHECK'; $CHECK"),
    Script {
        uses_tools: true,
        ..script(
            "mapped",
            &[],
            "$N run --map-auto -- sh -c 'cat /proc/self/uid_map /proc/self/gid_map; $CHECK'; \
             $N run -f --map-users 0:1:4294967295 -- true 2>&1 | wc -l",
        )
    },
    script("doctor", &["openat2"], "$CHECK; $N doctor >report; echo $?; tail -n 1 report; grep ' no: ' report"),
    script("drop_in", &[], "$P drop-in $N"),
    // The record agrees with strace in any case. The plan does not know about the filter.
    script(
        "witness",
        &["openat2"],
        "$N trace --witness -f -r -p -m --mount-proc -- sh -c '$CHECK' >out 2>&1; grep ^checked: out; \
         grep -o 'the witness agrees' out; grep -o ' [a-z_0-9]*(.*= -1 ENOSYS.*' out | sort -u; grep -o ': as planned' out",
    ),
    script(
        "killed_launcher",
        &[],
        "$N run -f -r --kill-child -- sh -c '$CHECK; echo $$ >c.new; mv c.new c; exec sleep 100' & \
         until [ -e c ]; do sleep 0.01; done; { kill -9 $!; wait $!; } 2>&-; c=$(cat c); \
         until ! grep -q '^State:.[RSD]' /proc/$c/status; do sleep 0.01; done 2>&-; echo ended",
    ),
    script(
        "guard",
        &["pidfd_open", "pidfd_send_signal"],
        "$CHECK; $N run -f -r --kill-child=TERM -- sh -c \
         'trap \"echo TERM >got; exit\" TERM; echo $$ >c.new; mv c.new c; while :; do sleep 0.01; done' >said 2>&1 & \
         until [ -e c ] || [ -s said ]; do sleep 0.01; done; sleep 0.3; { kill -9 $!; wait $!; } 2>&-; cat said; [ -s said ] || \
         until [ -e got ]; do sleep 0.01; done; [ -s said ] || cat got",
    ),
    script(
        "death_of_the_waiting_process",
        &[],
        "$CHECK; mkfifo go; $N run -f -r -n --pid-file pid --wait-fd 3 -- echo ran 3<>go 2>said & \
         until [ -e pid ]; do sleep 0.01; done; kill -9 $(cat pid); wait $!; echo $?; \
         sed 's/(pid [0-9]*)//' said",
    ),
];
