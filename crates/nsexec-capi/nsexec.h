/*
 * libnsexec.a: the steps that runc executes in C before its Go code starts.
 *
 * A runtime with runc's protocol executes itself again as the init of a container, with a message on the
 * descriptor that _LIBCONTAINER_INITPIPE names. In that process it calls one of the functions below before
 * anything else. The function reads the message, joins and creates the namespaces and maps the ids. It
 * returns in the process that becomes the container's init. The two other processes exit inside the function.
 *
 * Choose the function for the parent's release line of runc. Call it from a constructor: the process must
 * have one thread, and Go's runtime starts more.
 *
 *     #include <nsexec.h>
 *
 *     __attribute__((constructor)) static void start(void)
 *     {
 *             nsexec();
 *     }
 *
 * All of these functions have the following in common:
 *
 * - Without _LIBCONTAINER_INITPIPE they return at once and make no system call. (A _LIBCONTAINER_LOGPIPE that
 *   is not a number ends the process even then, as in runc.)
 * - A failure writes a record of level fatal to the descriptor that _LIBCONTAINER_LOGPIPE names, and ends the
 *   process with exit status 1. Without that variable the text goes to standard error (nsexec_v1_0: nowhere;
 *   nsexec_seed always uses standard error). A bug of this library is reported in the same way. They never
 *   return after a failure, and run no handler of atexit(3).
 * - A process with more than one thread is refused: see above.
 * - They allocate no memory and change no variable of the environment. They restore the signal mask and the
 *   dispositions.
 * - Do not call them twice, and not from two threads at once.
 */
#ifndef NSEXEC_H
#define NSEXEC_H

#ifdef __cplusplus
extern "C" {
#endif

/*
 * For a parent that is runc 1.2.0 or later. If a mount namespace is joined, the parent must start this
 * process from a sealed copy of the program, as runc's Go code does. Otherwise a process in that namespace
 * can overwrite the program (CVE-2019-5736).
 */
void nsexec(void);

/*
 * For a parent that is runc 1.1.0 to 1.1.15. The process first executes a sealed copy of its own program
 * (CVE-2019-5736), with the same arguments and environment, so the code before this call runs twice.
 */
void nsexec_v1_1(void);

/* For a parent that is runc 1.0.0-rc94 to 1.0.3. Executes a sealed copy first, as nsexec_v1_1 does. */
void nsexec_v1_0(void);

/* For a parent that is runc of 2018, before 1.0.0-rc6. */
void nsexec_seed(void);

/*
 * Returns the text escaped for a JSON string: \" \\ \b \n \r \t \f, \u00xx for the other bytes from 1 to 31
 * and for 127. Bytes from 128 on stay unchanged. Only runc's own tests call this function.
 *
 * The argument must be memory from malloc(3); the function frees or returns it. The result is memory from
 * malloc(3) that the caller must free. If no memory is left for the result, the result is a text with that
 * error, or NULL if there is no memory for it either. The result for NULL is NULL.
 */
char *escape_json_string(char *text);

#ifdef __cplusplus
}
#endif

#endif
