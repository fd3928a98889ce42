/*
 * A runtime as libnsexec.a sees it: a constructor that calls the archive, and a main that runs as the
 * container's init. START is the function to call. Without START this is the same program without the archive.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

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

__attribute__((constructor)) static void start(void)
{
	mark("before");
#ifdef START
	START();
#endif
	mark("after");
}

#ifdef PANIC_AT
/*
 * Causes a panic in the middle of a stage. The linker redirects every system call of the archive to this
 * wrapper. The archive of these tests panics where others return, so a nested call without an init pipe panics.
 */
long __real_syscall(long number, long a, long b, long c, long d, long e, long f);
long __wrap_syscall(long number, long a, long b, long c, long d, long e, long f);

long __wrap_syscall(long number, long a, long b, long c, long d, long e, long f)
{
	if (number == PANIC_AT) {
		unsetenv("_LIBCONTAINER_INITPIPE");
		nsexec();
	}
	return __real_syscall(number, a, b, c, d, e, f);
}
#endif

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
