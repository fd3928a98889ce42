/*
 * A runtime whose constructor runs the bootstrap, START: nsexec() of libnsexec.a or of runc's C, or
 * raw_sequence(). Stage 2 runs main: it writes a byte to the init pipe, and ends after the launcher's next byte.
 */
#include <stdlib.h>
#include <unistd.h>

void START(void);

__attribute__((constructor)) static void start(void)
{
	START();
}

int main(void)
{
	const char *text = getenv("_LIBCONTAINER_INITPIPE");
	int pipe = text == NULL ? -1 : atoi(text);
	char byte = 'r';
	if (write(pipe, &byte, 1) != 1 || read(pipe, &byte, 1) != 1)
		_exit(1);
	_exit(0);
}
