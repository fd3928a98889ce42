/*
 * What a runtime is to libnsexec.a: a constructor that calls it, and a main that is the container's init. START names
 * the function; without it this is the same program without the archive.
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

/* A system call that a tracer sees and the kernel refuses. */
static void mark(const char *text)
{
	ssize_t refused = write(-1, text, strlen(text));
	(void)refused;
}

#ifdef THREAD
/* Another library's constructor, before ours. */
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
 * The linker sends every system call of the archive here. With the archive that panics where the others return, a call
 * without an init pipe is a panic in the middle of a stage.
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

/* No stage but the last may come here, nor one that failed. */
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

/* What Go's runtime does first: it asks for its stack, whose answer needs the true thread id, and starts threads. */
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
