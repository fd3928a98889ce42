/*
 * The least that a launch can cost, and a process whose namespaces are joined.
 *
 *     floor serve [PREPARATION]... clone FLAGS PROGRAM     one clone3(2) with all flags, maps by the parent
 *     floor serve [PREPARATION]... vfork FLAGS PROGRAM     clone(2) with CLONE_VM and CLONE_VFORK, without maps
 *     floor serve [PREPARATION]... join PID PROGRAM        one setns(2) of a pidfd, and a child of that process
 *     floor serve [PREPARATION]... spawn PROGRAM ARGUMENT...   posix_spawn(3) of another candidate
 *     floor hold FLAGS                                     see hold()
 *
 * FLAGS is a hexadecimal number. The preparations, which make this process a larger parent, are `--memory MIB`
 * (touched in pages of 4 KiB), `--threads N`, `--descriptors N` and `--mounts N` (on /mnt, in a mount
 * namespace of its own). `--cgroup2 1` hides the cgroups of version 1 in such a namespace. A server answers as `driver` describes.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80
#endif

static char *no_environment[] = { NULL };

static void check(int failed, const char *what)
{
	if (failed) {
		perror(what);
		exit(1);
	}
}

static uint64_t now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/* -- preparations ---------------------------------------------------------------------------------------- */

static void touch_memory(size_t mib)
{
	size_t size = mib << 20;
	char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check(memory == MAP_FAILED, "mmap");
	madvise(memory, size, MADV_NOHUGEPAGE);
	for (size_t at = 0; at < size; at += 4096)
		memory[at] = 1;
}

static void *wait_for_ever(void *unused)
{
	for (;;)
		pause();
	return unused;
}

static void start_threads(int count)
{
	pthread_attr_t attributes;
	pthread_t thread;
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, 64 << 10);
	for (int at = 0; at < count; at++)
		check(pthread_create(&thread, &attributes, wait_for_ever, NULL) != 0, "pthread_create");
}

static void open_descriptors(int count)
{
	struct rlimit limit = { .rlim_cur = (rlim_t)count + 100, .rlim_max = (rlim_t)count + 100 };
	check(setrlimit(RLIMIT_NOFILE, &limit) != 0, "setrlimit");
	for (int at = 0; at < count; at++)
		check(open("/dev/null", O_RDONLY | O_CLOEXEC) < 0, "open");
}

/* The mounts go with the namespace, and so with this process. */
static void make_mounts(int count)
{
	check(unshare(CLONE_NEWNS) != 0, "unshare");
	check(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0, "mount /");
	for (int at = 0; at < count; at++)
		check(mount("/mnt", "/mnt", NULL, MS_BIND, NULL) != 0, "mount /mnt");
}

/* crun refuses a machine that has both versions of cgroups. */
static void show_only_cgroup2(void)
{
	const char *unified = "/sys/fs/cgroup/unified";
	make_mounts(0);
	if (access(unified, F_OK) == 0)
		check(mount(unified, "/sys/fs/cgroup", NULL, MS_BIND, NULL) != 0, "mount /sys/fs/cgroup");
}

/* -- launches -------------------------------------------------------------------------------------------- */

static pid_t clone3(uint64_t flags)
{
	struct clone_args args = { .flags = flags, .exit_signal = SIGCHLD };
	return (pid_t)syscall(SYS_clone3, &args, sizeof args);
}

static int ended_well(pid_t pid)
{
	int status;
	return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

static int write_map(pid_t pid, const char *name)
{
	char path[64];
	int fd, written;
	snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	written = write(fd, "0 0 1\n", 6) == 6;
	close(fd);
	return written;
}

static int by_clone(uint64_t flags, char **argv)
{
	int pair[2], mapped = 1;
	pid_t pid;
	if (!(flags & CLONE_NEWUSER)) {
		pid = clone3(flags);
		if (pid == 0) {
			execve(argv[0], argv, no_environment);
			_exit(1);
		}
		return ended_well(pid);
	}
	check(pipe2(pair, O_CLOEXEC) < 0, "pipe2");
	pid = clone3(flags);
	if (pid == 0) {
		char byte;
		if (read(pair[0], &byte, 1) == 1)
			execve(argv[0], argv, no_environment);
		_exit(1);
	}
	mapped = write_map(pid, "uid_map") && write_map(pid, "gid_map") && write(pair[1], "m", 1) == 1;
	close(pair[0]);
	close(pair[1]);
	return ended_well(pid) && mapped;
}

static int execute(void *argv)
{
	execve(((char **)argv)[0], argv, no_environment);
	_exit(1);
}

static int by_vfork(uint64_t flags, char **argv)
{
	static char stack[64 << 10] __attribute__((aligned(16)));
	return ended_well(clone(execute, stack + sizeof stack, (int)flags | CLONE_VM | CLONE_VFORK | SIGCHLD, argv));
}

static int by_join(pid_t target, char **argv)
{
	int pidfd = (int)syscall(SYS_pidfd_open, target, 0);
	int flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWCGROUP | CLONE_NEWTIME;
	pid_t pid = clone3(0);
	if (pid == 0)
		_exit(setns(pidfd, flags) == 0 && by_vfork(0, argv) ? 0 : 1);
	close(pidfd);
	return ended_well(pid);
}

static int by_spawn(char **argv)
{
	pid_t pid;
	return posix_spawn(&pid, argv[0], NULL, NULL, argv, no_environment) == 0 && ended_well(pid);
}

static int launch(char **argv)
{
	if (strcmp(argv[0], "clone") == 0)
		return by_clone(strtoull(argv[1], NULL, 16), argv + 2);
	if (strcmp(argv[0], "vfork") == 0)
		return by_vfork(strtoull(argv[1], NULL, 16), argv + 2);
	if (strcmp(argv[0], "join") == 0)
		return by_join(atoi(argv[1]), argv + 2);
	return by_spawn(argv + 1);
}

static void serve(char **argv)
{
	int socket, null;
	char byte;
	for (; argv[0] != NULL && strncmp(argv[0], "--", 2) == 0; argv += 2) {
		int count = atoi(argv[1]);
		if (strcmp(argv[0], "--memory") == 0)
			touch_memory((size_t)count);
		else if (strcmp(argv[0], "--threads") == 0)
			start_threads(count);
		else if (strcmp(argv[0], "--descriptors") == 0)
			open_descriptors(count);
		else if (strcmp(argv[0], "--cgroup2") == 0)
			show_only_cgroup2();
		else
			make_mounts(count);
	}
	/* The command gets /dev/null as its descriptor 0. */
	socket = fcntl(0, F_DUPFD_CLOEXEC, 10);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	check(socket < 0 || null < 0 || dup2(null, 0) < 0, "descriptor 0");
	while (read(socket, &byte, 1) == 1) {
		uint64_t start = now(), taken;
		int ok = launch(argv);
		taken = ok ? now() - start : 0;
		check(write(socket, &taken, sizeof taken) != sizeof taken, "write");
	}
}

/*
 * Prints the pid of a process in new namespaces, and waits until standard input is closed. Both processes end
 * then, and also if the caller dies.
 */
static void hold(uint64_t flags)
{
	char byte;
	pid_t pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* A process is in its own time namespace only if a parent created it. */
	if (flags & CLONE_NEWTIME)
		check(unshare(CLONE_NEWTIME) != 0, "unshare");
	pid = clone3(flags & ~(uint64_t)CLONE_NEWTIME);
	check(pid < 0, "clone3");
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		wait_for_ever(NULL);
	}
	printf("%d\n", (int)pid);
	fflush(stdout);
	while (read(0, &byte, 1) > 0)
		;
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	if (strcmp(argv[1], "hold") == 0)
		hold(strtoull(argv[2], NULL, 16));
	else
		serve(argv + 2);
	return 0;
}
