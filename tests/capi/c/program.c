/*
 * A runtime as libnsexec.a sees it: a constructor that calls the archive, and a main that runs as the
 * container's init. START is the function to call. Without START this is the same program without the archive.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifdef PANIC_AT
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#endif

#ifdef START
#include <nsexec.h>
#endif

/* Makes a system call that fails, as a mark in strace's output. */
static void mark(const char *text)
{
	ssize_t refused = write(-1, text, strlen(text));
	(void)refused;
}

#ifdef THREAD
/* A constructor of another library, which runs before ours and starts a thread. */
static void *wait_for_ever(void *unused)
{
	for (;;)
		pause();
	return unused;
}

__attribute__((constructor(200))) static void start_a_thread(void)
{
	pthread_t thread;
	if (pthread_create(&thread, NULL, wait_for_ever, NULL) != 0)
		abort();
}
#endif

#ifdef PANIC_AT
/*
 * Causes a panic in the middle of a stage. A filter turns one system call into a signal, in whose handler the
 * bootstrap is called again. The archive of these tests panics where others return, so that call, without an
 * init pipe, panics.
 */
static void panic_in_stage(int signal)
{
	(void)signal;
	unsetenv("_LIBCONTAINER_INITPIPE");
	nsexec();
}

static void panic_at_call(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PANIC_AT, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof filter / sizeof *filter, filter };
	struct sigaction action = { .sa_handler = panic_in_stage };

	if (sigaction(SIGSYS, &action, NULL) != 0)
		abort();
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
		abort();
}
#endif

__attribute__((constructor)) static void start(void)
{
	mark("before");
#ifdef PANIC_AT
	panic_at_call();
#endif
#ifdef START
	START();
#endif
	mark("after");
}

/* Runs only in the last stage, and only if the bootstrap succeeded. */
__attribute__((destructor)) static void end(void)
{
	printf("over\n");
}

#ifdef NEIGHBOUR
extern int neighbour(int number);
#endif

static void *twice(void *number)
{
	int *copy = malloc(sizeof *copy);
	if (copy == NULL)
		abort();
	*copy = *(int *)number * 2;
	return copy;
}

/*
 * Does what Go's runtime does first: queries the stack, which needs the correct thread id in the C library's
 * cache, and starts threads.
 */
int main(void)
{
	pthread_attr_t attributes;
	pthread_t thread;
	int number = 21;
	void *result = NULL;

	if (pthread_getattr_np(pthread_self(), &attributes) != 0)
		return 10;
	pthread_attr_destroy(&attributes);
	if (pthread_create(&thread, NULL, twice, &number) != 0 || pthread_join(thread, &result) != 0)
		return 11;
	number = *(int *)result;
	free(result);
#ifdef NEIGHBOUR
	number = neighbour(number);
#endif
	printf("pid %d uid %d gid %d: %d\n", (int)getpid(), (int)getuid(), (int)getgid(), number);
	return 0;
}
