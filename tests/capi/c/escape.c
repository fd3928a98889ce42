/*
 * Tests of escape_json_string: runc's own cases, every byte, and failing allocations. With RUNC the results are
 * compared with those of runc's C code, which is linked under that name.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <nsexec.h>

static int cases, failures;

static void check(int right, const char *what)
{
	cases++;
	if (!right) {
		failures++;
		printf("wrong: %s\n", what);
	}
}

/* The linker redirects every allocation of the archive and of this file to these wrappers. */
void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void __real_free(void *memory);
char *__real_strdup(const char *text);
static int refused_allocations, refused_copies, frees;

/* The last allocation, followed by guard bytes: the archive is not built with a sanitizer. */
static unsigned char *last;
static size_t last_size;
enum { GUARD = 16, FILL = 0xa5 };

static void *guarded(unsigned char *memory, size_t size)
{
	if (memory != NULL)
		memset(memory + size, FILL, GUARD);
	last_size = size;
	return last = memory;
}

static int guard_is_whole(void)
{
	int at;
	for (at = 0; at < GUARD; at++)
		if (last[last_size + (size_t)at] != FILL)
			return 0;
	return 1;
}

void *__wrap_malloc(size_t size)
{
	return refused_allocations ? NULL : guarded(__real_malloc(size + GUARD), size);
}

void *__wrap_calloc(size_t count, size_t size)
{
	return refused_allocations ? NULL : guarded(__real_calloc(1, count * size + GUARD), count * size);
}

char *__wrap_strdup(const char *text)
{
	return refused_copies ? NULL : __real_strdup(text);
}

void __wrap_free(void *memory)
{
	frees++;
	__real_free(memory);
}

static char *copy(const char *text)
{
	char *memory = __real_strdup(text);
	if (memory == NULL)
		abort();
	return memory;
}

static void escapes(const char *text, const char *want)
{
	char *given = copy(text), *got;
	int freed = frees;

	got = escape_json_string(given);
	check(got != NULL && strcmp(got, want) == 0, want);
	/* Nothing to escape: the same memory is returned. Otherwise the old memory is freed once. */
	check((got == given) == (strcmp(text, want) == 0), "which memory comes back");
	check(frees - freed == (strcmp(text, want) != 0), "what is freed");
	if (got != given)
		check(got == (char *)last && last_size == strlen(want) + 1 && guard_is_whole(), "the size of the new memory");
	free(got);
}

#ifdef RUNC
char *RUNC(char *text);

static void compare(unsigned int seed)
{
	char text[200];
	int round, at;

	srand(seed);
	for (round = 0; round < 20000; round++) {
		int length = rand() % (int)sizeof text;
		char *ours, *theirs;
		for (at = 0; at < length; at++)
			text[at] = (char)(1 + rand() % 255);
		text[length] = '\0';
		ours = escape_json_string(copy(text));
		theirs = RUNC(copy(text));
		if (strcmp(ours, theirs) != 0) {
			check(0, theirs);
			return;
		}
		free(ours);
		free(theirs);
	}
	check(1, "random texts");
}
#endif

int main(void)
{
	char one[2] = { 0, 0 }, want[8];
	int byte;
	char *got;

	/* The cases of runc's escape_test.go. */
	escapes("", "");
	escapes("abcdef", "abcdef");
	escapes("\\\\\\\\\\\\", "\\\\\\\\\\\\\\\\\\\\\\\\");
	escapes("with\"quote", "with\\\"quote");
	escapes("\n\r\b\t\f\\", "\\n\\r\\b\\t\\f\\\\");
	escapes("\007", "\\u0007");
	escapes("\017 \020 \037", "\\u000f \\u0010 \\u001f");
	escapes("\033", "\\u001b");
	escapes("<->", "<->");
	escapes("\176\177\200", "~\\u007f\200");
	escapes("a\177xc", "a\\u007fxc");
	escapes("a\033xc", "a\\u001bxc");
	escapes("a\nxc", "a\\nxc");
	escapes("a\\xc", "a\\\\xc");
	escapes("Barney B\303\244r", "Barney B\303\244r");

	for (byte = 1; byte < 256; byte++) {
		const char *place = strchr("\"\\\bb\nn\rr\tt\ff", byte);
		one[0] = (char)byte;
		if (byte == '"' || byte == '\\')
			sprintf(want, "\\%c", byte);
		else if (place != NULL && byte < ' ')
			sprintf(want, "\\%c", place[1]);
		else if (byte < ' ' || byte == 127)
			sprintf(want, "\\u%04x", (unsigned int)byte);
		else
			strcpy(want, one);
		escapes(one, want);
	}

	check(escape_json_string(NULL) == NULL, "no text");

	refused_allocations = 1;
	got = copy("plain");
	check(escape_json_string(got) == got, "nothing to do needs no memory");
	free(got);
	frees = 0;
	got = escape_json_string(copy("\n"));
	check(got != NULL && strcmp(got, "escape_json_string: out of memory") == 0, "no memory");
	check(frees == 1, "the text is freed without memory too");
	free(got);
	refused_copies = 1;
	check(escape_json_string(copy("\n")) == NULL, "no memory at all");
	refused_allocations = refused_copies = 0;

#ifdef RUNC
	compare(1);
#endif
	printf("%d checks, %d failures\n", cases, failures);
	return failures != 0;
}
