/*
 * The floor of the archive: the processes, messages and kernel effects of runc's C code, as raw calls without a
 * check, a log record or an error text. It reads a valid message of the benchmark, and nothing else.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The driver's number of the init pipe. */
enum { INIT_PIPE = 3 };

/* The numbers of the attributes and of the messages: docs/protocol.md. */
enum { CLONE_FLAGS = 27281, NS_PATHS, UIDMAP, GIDMAP, TIMENSOFFSET = 27290 };
enum { USERMAP_PLS = 0x40, USERMAP_ACK, RECVPID_PLS, RECVPID_ACK, GRANDCHILD, CHILD_FINISH, TIMEOFFSETS_PLS,
       TIMEOFFSETS_ACK };

static char message[4096] __attribute__((aligned(4)));
static char *paths, *uid_map, *gid_map, *offsets;
static uint32_t flags;

static void end(int status)
{
	syscall(SYS_exit_group, status);
	__builtin_unreachable();
}

/* A call that must succeed. */
#define must(...) ({ long result_ = syscall(__VA_ARGS__); if (result_ < 0) end(1); result_; })

static void put(int fd, int value)
{
	must(SYS_write, fd, &value, sizeof value);
}

static int get(int fd)
{
	int value = 0;
	if (must(SYS_read, fd, &value, sizeof value) != sizeof value)
		end(1);
	return value;
}

static int clone_sibling(void)
{
	return (int)must(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
}

static size_t length_of(const char *text)
{
	size_t length = 0;
	while (text[length] != 0)
		length++;
	return length;
}

/* Appends a text. Returns its end. */
static char *append(char *at, const char *text)
{
	while (*text != 0)
		*at++ = *text++;
	*at = 0;
	return at;
}

static char *append_number(char *at, int value)
{
	char digits[12], *from = digits + sizeof digits - 1;
	*from = 0;
	for (; value != 0; value /= 10)
		*--from = (char)('0' + value % 10);
	return append(at, from);
}

static void write_file(int pid, const char *name, const char *text)
{
	char path[64];
	int fd;
	if (text == NULL)
		return;
	append(append(append_number(append(path, "/proc/"), pid), "/"), name);
	fd = (int)must(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);
	must(SYS_write, fd, text, length_of(text));
	must(SYS_close, fd);
}

static void read_message(void)
{
	char *at = message + 16;
	uint32_t length;
	must(SYS_read, INIT_PIPE, message, 16);
	length = *(uint32_t *)message;
	if (length > sizeof message)
		end(1);
	must(SYS_read, INIT_PIPE, at, length - 16);
	while (at < message + length) {
		uint16_t size = ((uint16_t *)at)[0], number = ((uint16_t *)at)[1];
		switch (number) {
		case CLONE_FLAGS: flags = *(uint32_t *)(at + 4); break;
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
	for (char *at = paths; *at != 0 && count < 8;) {
		char *path;
		while (*at++ != ':')
			;
		for (path = at; *at != ',' && *at != 0; at++)
			;
		if (*at == ',')
			*at++ = 0;
		fds[count++] = (int)must(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
	}
	for (int at = 0; at < count; at++) {
		must(SYS_setns, fds[at], 0);
		must(SYS_close, fds[at]);
	}
}

static void stage_0(int first, int second, int stage_1)
{
	char line[64], *at;
	int stage_2;
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
			at = append_number(append(line, "{\"stage1_pid\":"), stage_1);
			at = append(append_number(append(at, ",\"stage2_pid\":"), stage_2), "}\n");
			must(SYS_write, INIT_PIPE, line, at - line);
			continue;
		}
		break;
	}
	put(second, GRANDCHILD);
	get(second);
	end(0);
}

/* Returns in stage 2. */
static void stage_1(int first)
{
	int stage_2;
	must(SYS_prctl, PR_SET_NAME, "raw:[1:CHILD]", 0, 0, 0);
	if (paths != NULL)
		join();
	if (flags & CLONE_NEWUSER) {
		must(SYS_unshare, CLONE_NEWUSER);
		put(first, USERMAP_PLS);
		get(first);
		must(SYS_setresuid, 0, 0, 0);
	}
	must(SYS_unshare, flags & ~(uint32_t)CLONE_NEWUSER);
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
		end(0);
	}
}

void raw_sequence(void)
{
	int first[2], second[2], child;
	read_message();
	if (paths != NULL)
		must(SYS_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0);
	must(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, first);
	must(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, second);
	must(SYS_prctl, PR_SET_NAME, "raw:[0:PARENT]", 0, 0, 0);
	child = clone_sibling();
	if (child != 0) {
		must(SYS_close, first[0]);
		stage_0(first[1], second[1], child);
	}
	must(SYS_close, first[1]);
	stage_1(first[0]);
	must(SYS_close, first[0]);
	must(SYS_close, second[1]);
	must(SYS_prctl, PR_SET_NAME, "raw:[2:INIT]", 0, 0, 0);
	get(second[0]);
	must(SYS_setsid);
	must(SYS_setuid, 0);
	must(SYS_setgid, 0);
	put(second[0], CHILD_FINISH);
	must(SYS_close, second[0]);
}
