/*
 * A runtime whose constructor runs the bootstrap, START: nsexec() of libnsexec.a or of runc's C, or
 * raw_sequence(). Stage 2 runs main: it writes a byte to the init pipe, and ends after the launcher's next byte.
 */
#include <unistd.h>

/* The driver's number of the init pipe. */
enum { INIT_PIPE = 3 };

void START(void);

__attribute__((constructor)) static void start(void)
{
	START();
}

int main(void)
{
	char byte = 'r';
	_exit(write(INIT_PIPE, &byte, 1) == 1 && read(INIT_PIPE, &byte, 1) == 1 ? 0 : 1);
}
