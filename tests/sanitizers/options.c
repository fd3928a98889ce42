/*
 * Linked into each program under AddressSanitizer by tests/sanitizers/run: several tests clear the environment, and
 * ASAN_OPTIONS with it.
 *
 * detect_leaks=0: LeakSanitizer traces its own process at exit. This fails under strace, in the tests that trace, and
 * where /proc is masked, and it then ends a correct process with an error. The launcher's memory is counted by `many`.
 * Status 99 is that of no command in the tests.
 */
const char *__asan_default_options(void);

const char *__asan_default_options(void)
{
	return "detect_leaks=0:exitcode=99:log_path=" REPORTS;
}
