"""Errors of runc at its command line, and their texts.

Runs as part of `run`: cases of suite_runc.
"""

from runc import FIRST, WITH_USER, gone, wait_for


def fails(run, args=("/bin/true",), **wanted):
    """A `run` that fails: no process is left afterwards, except for a holder."""
    run.see("init", run.run_to_failure(args, **wanted).must_fail())
    run.see_log("init")
    run.nothing_left()


def with_a_path_that_is_absent(run):
    fails(run, namespaces=("pid", "mount"), join={"network": "/proc/self/ns/absent"})


def with_a_file_that_is_not_a_network_namespace(run):
    (run.folder / "file").touch()
    fails(run, namespaces=("pid", "mount"), join={"network": run.folder / "file"})


def with_a_network_namespace_of_another_kind(run):
    holder = run.holder("--uts")
    fails(run, namespaces=("pid", "mount"), join={"network": f"/proc/{holder}/ns/uts"})


def with_the_own_user_namespace(run):
    fails(run, namespaces=("pid", "mount"), join={"user": "/proc/1/ns/user"})


def with_maps_that_overlap(run):
    fails(run, namespaces=WITH_USER, uids=[(0, FIRST, 10), (5, 300000, 10)])


def with_maps_without_root(run):
    fails(run, namespaces=WITH_USER, uids=[(1, FIRST, 10)])


def rootless_with_ids_of_another_user(run):
    wanted = run.many_ids()
    wanted["uids"] = [(0, run.user.uid, 1), (1, 1, 10)]
    fails(run, **wanted)


def with_an_oom_score_out_of_range(run):
    """The kernel rejects this number."""
    fails(run, oom=1001)


def with_a_command_that_is_not_there(run):
    fails(run, ["/bin/absent"])


def with_a_command_that_is_not_executable(run):
    fails(run, ["/etc/passwd"])


def exec_of_a_command_that_is_not_there(run):
    run.into()
    run.see("exec", run.runc("exec", run.id, "/bin/absent").must_fail())


def exec_in_a_container_that_has_ended(run):
    init = run.start(["/bin/true"])
    wait_for("its end", lambda: gone(init))
    run.see("exec", run.runc("exec", run.id, "/bin/true").must_fail())


CASES = [
    with_a_path_that_is_absent, with_a_file_that_is_not_a_network_namespace, with_a_network_namespace_of_another_kind,
    with_the_own_user_namespace, with_maps_that_overlap, with_maps_without_root, rootless_with_ids_of_another_user,
    with_an_oom_score_out_of_range, with_a_command_that_is_not_there, with_a_command_that_is_not_executable,
    exec_of_a_command_that_is_not_there, exec_in_a_container_that_has_ended,
]
