/*
 * Linked into each program under AddressSanitizer by tests/sanitizers/run: several tests clear the environment, and
 * ASAN_OPTIONS with it. Status 99 is that of no test. `run` explains detect_leaks.
 */
const char *__asan_default_options(void);

const char *__asan_default_options(void)
{
	return "detect_leaks=0:exitcode=99:log_path=" REPORTS;
}
