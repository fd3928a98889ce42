/*
 * libnsexec.a: what runc does in C before its Go code starts.
 *
 * A runtime that speaks runc's protocol starts itself again as the init of a container, with a message on the
 * descriptor that _LIBCONTAINER_INITPIPE names. One of the functions below, called before anything else in that
 * process, reads the message, joins and creates the namespaces, maps the ids, and returns in the process that becomes
 * the container's init. The other two processes on the way end inside.
 *
 * Choose the one whose line of runc the parent is, and call it from a constructor, since the process must not have a
 * second thread yet, and Go's runtime starts some:
 *
 *     #include <nsexec.h>
 *
 *     __attribute__((constructor)) static void start(void)
 *     {
 *             nsexec();
 *     }
 *
 * What they have in common:
 *
 * - Without _LIBCONTAINER_INITPIPE they return at once, and make no system call. (A _LIBCONTAINER_LOGPIPE that is
 *   no number ends the process also then, as in runc.)
 * - A failure is told by a record of level fatal on the descriptor that _LIBCONTAINER_LOGPIPE names, and without one by
 *   a line on standard error (in 1.0 then nowhere; the oldest line knows no log pipe), and exit status 1. So is a bug
 *   of ours. They never return after a failure, and run no handler of atexit(3).
 * - A process with more than one thread is refused: see above.
 * - They allocate no memory and change no variable of the environment. Signal mask and dispositions are after them
 *   what they were before.
 * - They are not to be called twice, nor by two threads at once.
 */
#ifndef NSEXEC_H
#define NSEXEC_H

#ifdef __cplusplus
extern "C" {
#endif

/*
 * The parent is runc 1.2.0 or later, up to today's. It starts this process from a sealed copy of the program, as runc's Go
 * code does, where a mount namespace is joined: otherwise a process in there can overwrite the program (CVE-2019-5736).
 */
void nsexec(void);

/*
 * The parent is runc 1.1.0 to 1.1.15. The process first executes a sealed copy of its own program (CVE-2019-5736), with
 * the same arguments and environment: what comes before this call happens twice.
 */
void nsexec_v1_1(void);

/* The parent is runc 1.0.0-rc94 to 1.0.3. As nsexec_v1_1, with the copy. */
void nsexec_v1_0(void);

/* The parent is runc as it was in 2018, before 1.0.0-rc6. */
void nsexec_seed(void);

/*
 * The text as the inside of a JSON string: \" \\ \b \n \r \t \f, \u00xx for the other bytes from 1 to 31 and for 127;
 * bytes from 128 on as they are. Only runc's own tests call it.
 *
 * Takes a string in memory from malloc(3), which it frees or gives back, and returns a string in such memory, for the
 * caller to free. If there is no memory, the string says so; if there is none for that either, it is NULL. NULL gives
 * NULL.
 */
char *escape_json_string(char *text);

#ifdef __cplusplus
}
#endif

#endif
