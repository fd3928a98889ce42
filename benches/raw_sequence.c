/*
 * The floor of the archive: the processes, messages and kernel effects of runc's C code, as raw calls without a
 * check, a log record or an error text. It reads a valid message of the benchmark, and nothing else.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The numbers of the attributes and of the messages: docs/protocol.md. */
enum { CLONE_FLAGS = 27281, NS_PATHS, UIDMAP, GIDMAP, TIMENSOFFSET = 27290 };
enum { USERMAP_PLS = 0x40, USERMAP_ACK, RECVPID_PLS, RECVPID_ACK, GRANDCHILD, CHILD_FINISH, TIMEOFFSETS_PLS,
       TIMEOFFSETS_ACK };

static char message[4096];
static char *paths, *uid_map, *gid_map, *offsets;
static uint32_t flags;

static void put(int fd, int value)
{
	if (write(fd, &value, sizeof value) != sizeof value)
		_exit(1);
}

static int get(int fd)
{
	int value = 0;
	if (read(fd, &value, sizeof value) != sizeof value)
		_exit(1);
	return value;
}

static pid_t clone_sibling(void)
{
	return (pid_t)syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
}

static void write_file(pid_t pid, const char *name, const char *text)
{
	char path[64];
	int fd;
	if (text == NULL)
		return;
	snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (write(fd, text, strlen(text)) < 0)
		_exit(1);
	close(fd);
}

static void read_message(int pipe)
{
	uint32_t length;
	char *at = message + 16;
	if (read(pipe, message, 16) != 16)
		_exit(1);
	memcpy(&length, message, sizeof length);
	if (length > sizeof message || read(pipe, at, length - 16) != (ssize_t)length - 16)
		_exit(1);
	while (at < message + length) {
		uint16_t size, number;
		memcpy(&size, at, 2);
		memcpy(&number, at + 2, 2);
		switch (number) {
		case CLONE_FLAGS: memcpy(&flags, at + 4, 4); break;
		case NS_PATHS: paths = at + 4; break;
		case UIDMAP: uid_map = at + 4; break;
		case GIDMAP: gid_map = at + 4; break;
		case TIMENSOFFSET: offsets = at + 4; break;
		}
		at += (size + 3) & ~3;
	}
}

/* Opens all paths first, as the C code does. */
static void join(void)
{
	int fds[8], count = 0;
	for (char *entry = strtok(paths, ","); entry != NULL && count < 8; entry = strtok(NULL, ","))
		fds[count++] = open(strchr(entry, ':') + 1, O_RDONLY | O_CLOEXEC);
	for (int at = 0; at < count; at++) {
		if (setns(fds[at], 0) != 0)
			_exit(1);
		close(fds[at]);
	}
}

static void stage_0(int pipe, int first, int second, pid_t stage_1)
{
	char line[64];
	pid_t stage_2 = 0;
	for (;;) {
		switch (get(first)) {
		case USERMAP_PLS:
			write_file(stage_1, "uid_map", uid_map);
			write_file(stage_1, "gid_map", gid_map);
			put(first, USERMAP_ACK);
			continue;
		case TIMEOFFSETS_PLS:
			write_file(stage_1, "timens_offsets", offsets);
			put(first, TIMEOFFSETS_ACK);
			continue;
		case RECVPID_PLS:
			stage_2 = get(first);
			put(first, RECVPID_ACK);
			snprintf(line, sizeof line, "{\"stage1_pid\":%d,\"stage2_pid\":%d}\n", (int)stage_1, (int)stage_2);
			if (write(pipe, line, strlen(line)) < 0)
				_exit(1);
			continue;
		}
		break;
	}
	put(second, GRANDCHILD);
	get(second);
	_exit(0);
}

static pid_t stage_1(int first)
{
	pid_t stage_2;
	prctl(PR_SET_NAME, "raw:[1:CHILD]", 0, 0, 0);
	if (paths != NULL)
		join();
	if (flags & CLONE_NEWUSER) {
		if (unshare(CLONE_NEWUSER) != 0)
			_exit(1);
		put(first, USERMAP_PLS);
		get(first);
		if (setresuid(0, 0, 0) != 0)
			_exit(1);
	}
	if (unshare((int)(flags & ~(uint32_t)CLONE_NEWUSER)) != 0)
		_exit(1);
	if (offsets != NULL) {
		put(first, TIMEOFFSETS_PLS);
		get(first);
	}
	stage_2 = clone_sibling();
	if (stage_2 != 0) {
		put(first, RECVPID_PLS);
		put(first, stage_2);
		get(first);
		put(first, CHILD_FINISH);
		_exit(0);
	}
	return stage_2;
}

void raw_sequence(void)
{
	int first[2], second[2], pipe = atoi(getenv("_LIBCONTAINER_INITPIPE"));
	pid_t child;
	read_message(pipe);
	if (paths != NULL)
		prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, first) != 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, second) != 0)
		_exit(1);
	prctl(PR_SET_NAME, "raw:[0:PARENT]", 0, 0, 0);
	child = clone_sibling();
	if (child != 0) {
		close(first[0]);
		stage_0(pipe, first[1], second[1], child);
	}
	close(first[1]);
	stage_1(first[0]);
	/* Stage 2. */
	close(first[0]);
	close(second[1]);
	prctl(PR_SET_NAME, "raw:[2:INIT]", 0, 0, 0);
	get(second[0]);
	setsid();
	if (setuid(0) != 0 || setgid(0) != 0)
		_exit(1);
	put(second[0], CHILD_FINISH);
	close(second[0]);
}
