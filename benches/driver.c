/*
 * Measures candidates in random order, round by round.
 *
 *     driver ROUNDS WARMUP HELD SEED PRIORITY PLAN OUTPUT
 *
 * PLAN has a line for each candidate, with a tab between two fields:
 *
 *     exec   NAME PROGRAM ARGUMENT...           from posix_spawn(3) to the end of the process
 *     serve  NAME PROGRAM ARGUMENT...           the program measures itself: each byte that it reads on
 *                                               descriptor 0 asks for one launch, and it answers with the
 *                                               nanoseconds as 8 bytes, 0 after a failure
 *     ready  NAME MESSAGE PROGRAM ARGUMENT...   from posix_spawn(3) of stage 0 to the byte that stage 2 writes
 *                                               after the bootstrap; MESSAGE is the file with the message
 *
 * OUTPUT gets a line for each sample: NAME, nanoseconds, page faults, microseconds of CPU. The last two are 0
 * for `serve`. With HELD above 0 there are no rounds: HELD copies of each `ready` candidate are held in stage
 * 2, and the samples are NAME and the bytes of memory (Pss) of each. PRIORITY above 0 asks for SCHED_FIFO, which
 * all candidates inherit. The first line of OUTPUT is `fifo 1` if the kernel permits it.
 *
 * The candidates have no environment (except that of the protocol), /dev/null as descriptors 0 and 1, and the
 * driver's standard error. A candidate that fails ends the driver with status 1 and a line on standard error.
 * Servers end when the driver ends: their descriptor 0 is closed. The driver ends with its parent.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { CANDIDATES_MAX = 64, FIELDS_MAX = 64, LIMIT_MS = 60000, MESSAGE_MAX = 1 << 20, LOWEST = 10 };

enum kind { EXEC, SERVE, READY };

struct candidate {
	enum kind kind;
	char *name;
	char **argv;
	/* SERVE: our end of its descriptor 0, and its pid. */
	int fd;
	pid_t pid;
	/* READY */
	char *message;
	size_t message_len;
};

/* A process in stage 2, with the other two stages to reap. */
struct held {
	int init, log;
	pid_t pids[3];
};

struct sample {
	uint64_t ns, faults, cpu_us;
};

static FILE *output;
static int errors;

static void fail(const char *format, ...)
{
	va_list list;
	va_start(list, format);
	vdprintf(errors, format, list);
	va_end(list);
	dprintf(errors, "\n");
	exit(1);
}

static void check(int failed, const char *what)
{
	if (failed)
		fail("driver: %s: %s", what, strerror(errno));
}

static uint64_t now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/* Moves a descriptor above the numbers that children use. */
static int lifted(int fd)
{
	int high = fcntl(fd, F_DUPFD_CLOEXEC, LOWEST);
	check(high < 0, "fcntl");
	close(fd);
	return high;
}

static uint64_t xorshift(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static pid_t spawn(char **argv, const posix_spawn_file_actions_t *actions, char **environment)
{
	pid_t pid;
	int number = posix_spawn(&pid, argv[0], actions, NULL, argv, environment);
	if (number != 0)
		fail("driver: %s: %s", argv[0], strerror(number));
	return pid;
}

/* Reaps the process, and adds what it used. */
static void reap(pid_t pid, const char *name, struct sample *sample)
{
	struct rusage used;
	int status;
	while (wait4(pid, &status, __WALL, &used) < 0)
		check(errno != EINTR, name);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		fail("driver: %s: wait status %#x", name, (unsigned)status);
	sample->faults += (uint64_t)used.ru_minflt + (uint64_t)used.ru_majflt;
	sample->cpu_us += (uint64_t)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000 +
			  (uint64_t)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
}

/* Reads at least one byte within the limit. */
static size_t receive(int fd, void *into, size_t size, const char *name)
{
	struct pollfd poller = { .fd = fd, .events = POLLIN };
	ssize_t got;
	if (poll(&poller, 1, LIMIT_MS) != 1)
		fail("driver: %s: no answer", name);
	got = read(fd, into, size);
	if (got <= 0)
		fail("driver: %s: ended without an answer", name);
	return (size_t)got;
}

/* -- exec ------------------------------------------------------------------------------------------------ */

static char *no_environment[] = { NULL };

static struct sample measure_exec(struct candidate *it)
{
	struct sample sample = { 0 };
	uint64_t start = now();
	pid_t pid = spawn(it->argv, NULL, no_environment);
	reap(pid, it->name, &sample);
	sample.ns = now() - start;
	return sample;
}

/* -- serve ----------------------------------------------------------------------------------------------- */

static void start_server(struct candidate *it)
{
	posix_spawn_file_actions_t actions;
	int pair[2];
	check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0, "socketpair");
	it->fd = lifted(pair[0]);
	pair[1] = lifted(pair[1]);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, pair[1], 0);
	it->pid = spawn(it->argv, &actions, no_environment);
	posix_spawn_file_actions_destroy(&actions);
	close(pair[1]);
}

static struct sample measure_serve(struct candidate *it)
{
	struct sample sample = { 0 };
	size_t got = 0;
	check(send(it->fd, "l", 1, MSG_NOSIGNAL) != 1, it->name);
	while (got < sizeof sample.ns)
		got += receive(it->fd, (char *)&sample.ns + got, sizeof sample.ns - got, it->name);
	if (sample.ns == 0)
		fail("driver: %s: the launch failed", it->name);
	return sample;
}

static void end_server(struct candidate *it)
{
	struct sample ignored = { 0 };
	close(it->fd);
	reap(it->pid, it->name, &ignored);
}

/* -- ready ----------------------------------------------------------------------------------------------- */

static char *protocol_environment[] = {
	"_LIBCONTAINER_INITPIPE=3", "_LIBCONTAINER_LOGPIPE=4", "_LIBCONTAINER_LOGLEVEL=4", NULL,
};

/* Prints the records of a bootstrap that failed. */
static void fail_with_log(int log, const char *name)
{
	char text[4096];
	ssize_t got = read(log, text, sizeof text);
	fail("driver: %s: %.*s", name, got > 0 ? (int)got : 0, text);
}

/* Starts the three stages. Returns when stage 2 is ready: its byte has arrived. */
static struct sample start_stages(struct candidate *it, struct held *held)
{
	posix_spawn_file_actions_t actions;
	struct sample sample = { 0 };
	char text[256], *line_end = NULL;
	int pair[2], log[2];
	size_t got = 0;
	uint64_t start;
	check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0, "socketpair");
	check(pipe2(log, O_CLOEXEC | O_NONBLOCK) < 0, "pipe2");
	for (int end = 0; end < 2; end++) {
		pair[end] = lifted(pair[end]);
		log[end] = lifted(log[end]);
	}
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, pair[1], 3);
	posix_spawn_file_actions_adddup2(&actions, log[1], 4);

	start = now();
	held->pids[0] = spawn(it->argv, &actions, protocol_environment);
	close(pair[1]);
	close(log[1]);
	check(send(pair[0], it->message, it->message_len, MSG_NOSIGNAL) != (ssize_t)it->message_len, it->name);
	/* The pid line, then the byte of stage 2. */
	while (line_end == NULL || line_end + 1 == text + got) {
		struct pollfd poller = { .fd = pair[0], .events = POLLIN };
		ssize_t more = poll(&poller, 1, LIMIT_MS) == 1 ? read(pair[0], text + got, sizeof text - 1 - got) : 0;
		if (more <= 0)
			fail_with_log(log[0], it->name);
		got += (size_t)more;
		text[got] = 0;
		line_end = strchr(text, '\n');
	}
	sample.ns = now() - start;

	posix_spawn_file_actions_destroy(&actions);
	if (sscanf(text, "{\"stage1_pid\":%d,\"stage2_pid\":%d}", &held->pids[1], &held->pids[2]) != 2)
		fail("driver: %s: %s", it->name, text);
	held->init = pair[0];
	held->log = log[0];
	return sample;
}

static void end_stages(struct candidate *it, struct held *held, struct sample *sample)
{
	check(send(held->init, "x", 1, MSG_NOSIGNAL) != 1, it->name);
	for (int stage = 0; stage < 3; stage++)
		reap(held->pids[stage], it->name, sample);
	close(held->init);
	close(held->log);
}

static struct sample measure_ready(struct candidate *it)
{
	struct held held;
	struct sample sample = start_stages(it, &held);
	end_stages(it, &held, &sample);
	return sample;
}

/* Returns the bytes of memory of a process, with its part of shared pages. */
static uint64_t pss_of(pid_t pid)
{
	char path[64], line[256];
	unsigned long kib = 0;
	FILE *file;
	snprintf(path, sizeof path, "/proc/%d/smaps_rollup", (int)pid);
	file = fopen(path, "re");
	check(file == NULL, path);
	while (fgets(line, sizeof line, file) != NULL && sscanf(line, "Pss: %lu kB", &kib) != 1)
		;
	fclose(file);
	return (uint64_t)kib * 1024;
}

static void measure_held(struct candidate *it, int count)
{
	struct held *held = calloc((size_t)count, sizeof *held);
	struct sample ignored = { 0 };
	check(held == NULL, "calloc");
	for (int at = 0; at < count; at++)
		start_stages(it, &held[at]);
	for (int at = 0; at < count; at++)
		fprintf(output, "%s\t%llu\n", it->name, (unsigned long long)pss_of(held[at].pids[2]));
	for (int at = 0; at < count; at++)
		end_stages(it, &held[at], &ignored);
	free(held);
}

/* -- the plan -------------------------------------------------------------------------------------------- */

static void read_message(struct candidate *it, const char *path)
{
	FILE *file = fopen(path, "re");
	check(file == NULL, path);
	it->message = malloc(MESSAGE_MAX);
	check(it->message == NULL, "malloc");
	it->message_len = fread(it->message, 1, MESSAGE_MAX, file);
	fclose(file);
}

static int read_plan(const char *path, struct candidate *all)
{
	FILE *file = fopen(path, "re");
	char *line = NULL;
	size_t size = 0;
	int count = 0;
	check(file == NULL, path);
	while (getline(&line, &size, file) > 0 && count < CANDIDATES_MAX) {
		struct candidate *it = &all[count++];
		char **fields = calloc(FIELDS_MAX + 1, sizeof *fields), *rest = line;
		int found = 0;
		check(fields == NULL, "calloc");
		line[strcspn(line, "\n")] = 0;
		while (found < FIELDS_MAX && (fields[found] = strsep(&rest, "\t")) != NULL)
			found++;
		if (found < 3)
			fail("driver: a line with %d fields in %s", found, path);
		it->kind = strcmp(fields[0], "exec") == 0 ? EXEC : strcmp(fields[0], "serve") == 0 ? SERVE : READY;
		it->name = fields[1];
		it->argv = fields + 2;
		if (it->kind == READY) {
			read_message(it, fields[2]);
			it->argv = fields + 3;
		}
		/* The fields point into this line. */
		line = NULL;
		size = 0;
	}
	fclose(file);
	return count;
}

static struct sample measure(struct candidate *it)
{
	return it->kind == EXEC ? measure_exec(it) : it->kind == SERVE ? measure_serve(it) : measure_ready(it);
}

static void run_rounds(struct candidate *all, int count, int rounds, int warmup, uint64_t seed)
{
	int order[CANDIDATES_MAX];
	for (int at = 0; at < count; at++)
		order[at] = at;
	for (int round = -warmup; round < rounds; round++) {
		for (int at = count - 1; at > 0; at--) {
			int other = (int)(xorshift(&seed) % (uint64_t)(at + 1)), kept = order[at];
			order[at] = order[other];
			order[other] = kept;
		}
		for (int at = 0; at < count; at++) {
			struct candidate *it = &all[order[at]];
			struct sample sample = measure(it);
			if (round >= 0)
				fprintf(output, "%s\t%llu\t%llu\t%llu\n", it->name, (unsigned long long)sample.ns,
					(unsigned long long)sample.faults, (unsigned long long)sample.cpu_us);
		}
	}
}

int main(int argc, char **argv)
{
	static struct candidate all[CANDIDATES_MAX];
	struct sched_param priority = { 0 };
	int count, held, null, fifo;
	if (argc != 8)
		return 2;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	errors = fcntl(2, F_DUPFD_CLOEXEC, LOWEST);
	held = atoi(argv[3]);
	output = fopen(argv[7], "we");
	check(output == NULL, argv[7]);
	count = read_plan(argv[6], all);
	null = open("/dev/null", O_RDWR);
	check(null < 0, "/dev/null");
	for (int fd = 0; fd < 2; fd++)
		check(dup2(null, fd) < 0, "dup2");
	close(null);
	priority.sched_priority = atoi(argv[5]);
	fifo = priority.sched_priority > 0 && sched_setscheduler(0, SCHED_FIFO, &priority) == 0;
	fprintf(output, "fifo %d\n", fifo);
	for (int at = 0; at < count; at++)
		if (all[at].kind == SERVE)
			start_server(&all[at]);
	if (held > 0) {
		for (int at = 0; at < count; at++)
			measure_held(&all[at], held);
	} else {
		run_rounds(all, count, atoi(argv[1]), atoi(argv[2]), strtoull(argv[4], NULL, 10) | 1);
	}
	for (int at = 0; at < count; at++)
		if (all[at].kind == SERVE)
			end_server(&all[at]);
	return fclose(output) == 0 ? 0 : 1;
}
