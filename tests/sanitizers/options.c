/*
 * Linked into each program under AddressSanitizer by tests/sanitizers/run: several tests clear the environment, and
 * ASAN_OPTIONS with it.
 *
 * detect_leaks=0: LeakSanitizer traces its own process at exit. This fails under strace, in the tests that trace, and
 * where /proc is masked, and it then ends a correct process with an error. The launcher's memory is counted by `many`.
 * detect_stack_use_after_return=0: it keeps frames in a heap that belongs to the thread's TLS. A process that the
 * launcher starts with CLONE_VM has the same TLS, and both processes take frames from that heap.
 * handle_*=0: the record would have the handlers of AddressSanitizer, and the plan has none. A signal that ends the program
 * fails a test without a report.
 *
 * Status 99 is that of no command in the tests.
 */
const char *__asan_default_options(void);

const char *__asan_default_options(void)
{
	return "handle_segv=0:handle_sigbus=0:handle_sigfpe=0:detect_leaks=0:"
	       "detect_stack_use_after_return=0:exitcode=99:log_path=" REPORTS;
}
